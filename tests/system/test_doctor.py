"""papr-hook doctor on hosts with systemd: each thing that is broken is found, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.harness.booted_host import BootedHost
from tests.helpers.cli import one_line
from tests.helpers.installation import (
    CLIENTS,
    GATEWAY,
    HOOK,
    INSTALL,
    OURS_IN_DIR,
    SHARE,
    UPSTREAM,
    answers,
    crowd,
    directly,
    install,
)
from tests.helpers.polling import wait_until

DOCTOR = ("env", f"PYTHONPATH={SHARE}", "python3", "-B", "-m", "papr_hook", "doctor")
"""The command, also while /usr/bin/papr-hook is put away."""
LAST_CALL = "/run/libvirt/papr-hook/last-call"
SOCKET_UNIT = "papr-hook-libvirtd.socket"


@pytest.fixture(scope="module")
def gated(host: BootedHost) -> Iterator[BootedHost]:
    """A host with a gateway, which the tests of this module break and mend."""
    install(host)
    yield host
    host.sh(f"{INSTALL} --uninstall", check=False)


def examine(host: BootedHost, *args: str) -> dict[str, str]:
    """Return what is found that is more than a note: the severity of each name."""
    done = host.run(*DOCTOR, "--json", *args, check=False)
    found = {one["name"]: one["severity"] for one in json.loads(done.stdout)}
    faults = {name: severity for name, severity in found.items() if severity != "note"}
    assert done.returncode == int("error" in faults.values()), done
    assert done.stderr == ""
    return faults


def test_a_host_that_works(gated: BootedHost) -> None:
    """The notes have versions, the last call of the hook with its result, and the gateway's socket."""
    with crowd(gated):
        assert directly(gated, "start", "--paused", "crowd", check=False).returncode == 1
        done = gated.run("papr-hook", "doctor")
    lines = done.stdout.splitlines()
    assert [line.split("[")[-1] for line in lines[:-1]] == ["versions]", "hook-call]", "gateway-up]"], lines
    assert lines[-1] == "host: nothing is wrong"
    assert "for guest 'crowd' (prepare), and refused the start" in lines[1]
    assert f"{CLIENTS} is the gateway's, in front of {UPSTREAM}" in lines[2]
    assert gated.run("libvirtd", "--version").stdout.split()[-1] in lines[0]


@pytest.mark.parametrize(
    ("breakage", "expected"),
    [
        (f"rm {HOOK}", {"hook-missing": "error"}),
        (f"printf '#!/bin/sh\\n' >{HOOK}", {"hook-replaced": "error"}),
        (f"chmod a-x {HOOK}", {"hook-not-executable": "error"}),
        (f"sed -i s,^lib=.*,lib=/usr/share/none, {HOOK}", {"hook-broken": "error"}),
        (f"mkdir -p {HOOK}.d; cp -p {HOOK} {OURS_IN_DIR}", {"hook-twice": "warning"}),
    ],
)
def test_hook(gated: BootedHost, breakage: str, expected: dict[str, str]) -> None:
    """A hook that is missing, replaced, not executable, without its modules, or there twice."""
    gated.sh(f"cp -p {HOOK} /srv/hook")
    try:
        gated.sh(breakage)
        assert examine(gated) == expected
    finally:
        gated.sh(f"rm -rf {HOOK}.d; mv /srv/hook {HOOK}")
    assert examine(gated) == {}


def test_hook_whose_python_finds_less(gated: BootedHost) -> None:
    """lxml in root's own packages is there for the command, and not for the hook, which then lets guests start."""
    lxml = gated.run("python3", "-c", "import lxml; print(lxml.__path__[0])").stdout.strip()
    own = gated.run("python3", "-c", "import site; print(site.getusersitepackages())").stdout.strip()
    gated.sh(f"mkdir -p {own}; mv {lxml} {own}")
    try:
        assert examine(gated) == {"hook-broken": "error"}
    finally:
        gated.sh(f"mv {own}/lxml {lxml}; rm -r {own}")
    assert examine(gated) == {}


def test_hook_that_libvirt_has_not_found(gated: BootedHost) -> None:
    """A daemon that looked for hooks while there was none does not call one that comes later."""
    gated.sh(f"mv {HOOK} /srv/hook; systemctl restart libvirtd")
    try:
        assert answers(gated)
        gated.sh(f"mv /srv/hook {HOOK}; rm -f {LAST_CALL}")
        installed_at = float(gated.run("stat", "-c", "%Z", HOOK).stdout)
        # The kernel gives the time of its boot, and so the start of a process, in whole seconds.
        wait_until(lambda: time.time() > installed_at + 2)
        with crowd(gated):
            gated.virsh("start", "--paused", "crowd")
            assert examine(gated) == {"hook-not-called": "error"}
    finally:
        gated.sh(f"[ ! -e /srv/hook ] || mv /srv/hook {HOOK}; systemctl restart libvirtd")
    assert answers(gated)


def test_clients_that_come_by_tcp(gated: BootedHost) -> None:
    """libvirt's socket for TCP is a way past the gateway."""
    drop_in = "/run/systemd/system/libvirtd-tcp.socket.d"
    gated.write(f"{drop_in}/local.conf", "[Socket]\nListenStream=\nListenStream=127.0.0.1:16509\n")
    # The daemon takes over only sockets that were there before it.
    gated.sh("systemctl daemon-reload; systemctl stop libvirtd; systemctl start libvirtd-tcp.socket")
    try:
        assert answers(gated)
        assert examine(gated) == {"network-clients": "warning"}
    finally:
        gated.sh(f"systemctl stop libvirtd libvirtd-tcp.socket; rm -r {drop_in}; systemctl daemon-reload")
        gated.sh("systemctl start libvirtd")
    assert answers(gated)
    assert examine(gated) == {}


def test_gateway_that_is_stopped(gated: BootedHost) -> None:
    """Nobody listens at the clients' socket; the remedy that is named helps."""
    gated.run("systemctl", "stop", SOCKET_UNIT)
    try:
        assert examine(gated) == {"libvirt-unreachable": "error", "gateway-down": "error"}
        said = gated.run(*DOCTOR, check=False).stdout
        assert f"run 'systemctl restart {SOCKET_UNIT}'" in said
    finally:
        gated.run("systemctl", "restart", SOCKET_UNIT)
    assert examine(gated) == {}


def test_gateway_that_cannot_be_started(gated: BootedHost) -> None:
    """Clients bypass it, and libvirt answers them."""
    gated.sh(f"mv /usr/bin/papr-hook /usr/bin/aside; systemctl stop {GATEWAY}")
    try:
        wait_until(lambda: answers(gated))
        assert examine(gated) == {"gateway-bypassed": "error"}
    finally:
        gated.sh(f"mv /usr/bin/aside /usr/bin/papr-hook; systemctl restart {GATEWAY}")
    assert examine(gated) == {}


def test_gateway_with_other_rights_than_libvirt(gated: BootedHost) -> None:
    """Its socket lets in more or fewer users than the daemon's own would."""
    mode = gated.run("stat", "-c", "%a", UPSTREAM).stdout.strip()
    try:
        gated.run("chmod", "600", CLIENTS)
        assert examine(gated) == {"gateway-socket": "error"}
        gated.sh(f"chmod {mode} {CLIENTS}; chgrp nogroup {CLIENTS}")
        assert examine(gated) == {"gateway-socket": "error"}
    finally:
        gated.sh(f"chown --reference={UPSTREAM} {CLIENTS}; chmod --reference={UPSTREAM} {CLIENTS}")
    assert examine(gated) == {}


def test_gateway_that_is_disabled(gated: BootedHost) -> None:
    """That is a note; the rest is as it was."""
    gated.run("papr-hook", "gateway", "disable")
    try:
        assert examine(gated) == {}
        assert "[gateway-off]" in gated.run(*DOCTOR).stdout
    finally:
        gated.run("papr-hook", "gateway", "enable")


def test_clients_that_bypass_the_gateway(gated: BootedHost) -> None:
    """A client of libvirt's own socket is a warning."""
    client = [*gated.argv("virsh", "-c", f"qemu:///system?socket={UPSTREAM}", "event", "--all", "--loop")]
    with subprocess.Popen(client, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: examine(gated) == {"direct-client": "warning"})
            done = gated.run(*DOCTOR)
            assert "nothing is wrong" not in done.stdout
            (pid,) = re.findall(r"warning: virsh \(process (\d+)\)", done.stdout)
            gated.sh(f"kill {pid}")
        finally:
            process.terminate()


def test_guest_on_autostart(gated: BootedHost) -> None:
    """One that does not comply is an error, and adopt mends it."""
    with crowd(gated):
        directly(gated, "autostart", "crowd")
        assert examine(gated)["autostart"] == "error"


def test_readers_that_go_and_users_without_rights(gated: BootedHost) -> None:
    """A closed pipe is no error worth a word; a user who may not look is told so in one line."""
    done = gated.sh("papr-hook doctor | head -n 1")
    assert one_line(done.stdout)
    assert done.stderr == ""
    assert gated.sh("papr-hook doctor --json | true").stderr == ""
    refused = gated.run("setpriv", "--reuid=nobody", "--clear-groups", "papr-hook", "doctor", check=False)
    assert (refused.returncode, refused.stderr) == (2, "papr-hook: must be run as root\n")
