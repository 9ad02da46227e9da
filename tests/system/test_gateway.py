"""The gateway as install.sh sets it up, on hosts with systemd, polkit and a socket-activated libvirtd."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.booted_host import RELEASES, BootedHost, started
from tests.helpers.installation import (
    CLIENTS,
    CONF,
    CROWDED,
    GATEWAY,
    INSTALL,
    UPSTREAM,
    answers,
    crowd,
    directly,
    in_journal,
    install,
    ours,
    pci_roots,
    refused,
    snapshot,
    verify,
)
from tests.helpers.polling import wait_until


@pytest.fixture
def gated(host: BootedHost) -> Iterator[BootedHost]:
    """A host with a gateway, which it is rid of afterwards."""
    install(host)
    yield host
    host.sh(f"virsh -q destroy crowd; virsh -q undefine crowd; {INSTALL} --uninstall; rm -f {CONF}", check=False)


def test_unmodified_virsh(gated: BootedHost) -> None:
    """define, create and the start of an old guest: all of them get their layout, no start is refused."""
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6
    gated.virsh("undefine", "crowd")
    gated.virsh("create", "--paused", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6
    gated.virsh("destroy", "crowd")
    with crowd(gated):
        assert pci_roots(gated) == 1
        gated.virsh("start", "--paused", "crowd")
        assert pci_roots(gated) == pci_roots(gated, "--inactive") == 6
    assert in_journal(gated, "guest 'crowd': laid out on its way to libvirt")
    assert in_journal(gated, "guest 'crowd': laid out for its next start")


def test_sockets_as_they_were(host: BootedHost) -> None:
    """The gateway's socket has the mode, owner and group of libvirtd's; the others stay; all are put back."""
    list_sockets = "cd /run/libvirt; stat -c '%n %a %U %G' *libvirt*-sock* 2>&1"
    host.write("/etc/systemd/system/libvirtd.socket.d/own.conf", "[Socket]\nSocketMode=0660\nSocketGroup=libvirt\n")
    units = "libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"
    again = f"systemctl daemon-reload; systemctl stop {units}; systemctl reset-failed {units}; systemctl start {units}"
    host.sh(again)
    try:
        before = host.sh(list_sockets).stdout
        assert "libvirt-sock 660 root libvirt" in before
        install(host)
        assert host.sh(list_sockets).stdout == before
        assert host.sh(f"stat -c '%a %U %G' {UPSTREAM}").stdout == "660 root libvirt\n"
        for name in ("libvirt-sock-ro", "libvirt-sock"):
            assert host.run("virsh", "-c", f"qemu:///system?socket=/run/libvirt/{name}", "-r", "uri").returncode == 0
        install(host, "--uninstall")
        assert host.sh(list_sockets).stdout == before
        assert host.sh("ls /run/libvirt/upstream", check=False).returncode != 0
        assert answers(host)
    finally:
        host.sh(f"{INSTALL} --uninstall; rm -r /etc/systemd/system/libvirtd.socket.d; {again}")


def test_who_needs_libvirtd_runs_again(host: BootedHost) -> None:
    """A service that systemd stops with libvirtd is started with it again, and --dry-run names it beforehand."""
    unit = "[Unit]\nRequires={}\nAfter={}\n[Service]\nExecStart=/usr/bin/sleep infinity\n"
    host.write("/etc/systemd/system/manager.service", unit.format("libvirtd.service", "libvirtd.service"))
    host.write("/etc/systemd/system/agent.service", unit.format("manager.service", "manager.service"))
    host.sh("systemctl daemon-reload; systemctl start agent.service")
    try:
        said = " ".join(install(host, "--dry-run").split())
        assert "libvirtd would be restarted, and agent.service manager.service with it; guests run on" in said
        for options in ([], ["--uninstall"]):
            said = " ".join(install(host, *options).split())
            assert "libvirtd was restarted, and agent.service manager.service with it; the guests ran on" in said
            assert host.sh("systemctl is-active manager agent").stdout == "active\nactive\n"
    finally:
        host.sh("systemctl stop manager.service; rm /etc/systemd/system/manager.service")
        host.sh("rm /etc/systemd/system/agent.service; systemctl daemon-reload")


def test_hook_only(gated: BootedHost) -> None:
    """--hook-only moves no socket, and takes a gateway away that was there."""
    said = install(gated, "--hook-only")
    assert "refused at its next cold start" in " ".join(said.split())
    assert gated.sh(f"ls {UPSTREAM}", check=False).returncode != 0
    with crowd(gated):
        assert gated.virsh("start", "--paused", "crowd", check=False).returncode == 1
    assert install(gated, "--hook-only").count("restarted") == 0


def test_clients_that_are_there_stay(gated: BootedHost) -> None:
    """A newer version over an older one cuts nobody off: not its clients, not libvirtd's."""
    pid = gated.sh("pidof libvirtd").stdout
    script = f"(uname >/dev/null; echo hostname; {INSTALL} >/dev/null; echo uri) | virsh -q -c qemu:///system"
    said = gated.sh(script)
    assert "qemu:///system" in said.stdout, said
    assert said.stderr == ""
    assert gated.sh("pidof libvirtd").stdout == pid


@pytest.mark.parametrize("unit", ["libvirtd.socket", f"{GATEWAY}.service"])
def test_restarts(gated: BootedHost, unit: str) -> None:
    """Whoever restarts either of the two finds libvirt answering, through the gateway."""
    gated.sh(f"systemctl stop libvirtd.service; systemctl restart {unit}")
    assert answers(gated)
    assert gated.run("systemctl", "is-active", GATEWAY).stdout == "active\n"


def test_libvirt_stops_and_starts(gated: BootedHost) -> None:
    """Without libvirt a client is told what it is told without a gateway; with it, it is served again."""
    sockets = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"
    gated.sh(f"systemctl stop libvirtd.service {sockets}")
    said = gated.virsh("uri", check=False).stderr
    assert "No such file or directory" in said
    gated.sh(f"systemctl start {sockets}")
    assert answers(gated)


def test_libvirt_that_fails(gated: BootedHost) -> None:
    """Where systemd gives libvirtd's socket up, clients are told what they are told without a gateway."""
    gated.sh("systemctl stop libvirtd.service; cp -p /etc/libvirt/libvirtd.conf /srv")
    gated.sh("echo noise >>/etc/libvirt/libvirtd.conf")
    try:
        wait_until(lambda: "No such file or directory" in gated.virsh("uri", check=False).stderr)
    finally:
        gated.sh("mv /srv/libvirtd.conf /etc/libvirt; systemctl reset-failed; systemctl start libvirtd.socket")
    assert answers(gated)
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6


def test_killed(gated: BootedHost) -> None:
    """kill -9 of the gateway: those who are served stay served, and the next client is."""
    kill = f"systemctl kill --kill-whom=main -s KILL {GATEWAY}"
    script = f"(echo hostname; sleep 1; {kill}; sleep 1; echo uri) | virsh -q"
    said = gated.sh(script)
    assert "qemu:///system" in said.stdout
    assert said.stderr == ""
    assert answers(gated)


def test_gateway_that_does_not_start(gated: BootedHost) -> None:
    """libvirt's clients go past it, the journal says so; once it is mended it is in front again."""
    gated.sh(f"mv /usr/bin/papr-hook /usr/bin/aside; systemctl stop {GATEWAY}")
    wait_until(lambda: answers(gated))
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 1
    assert in_journal(gated, "the gateway does not start, so clients go past it")
    gated.sh(f"mv /usr/bin/aside /usr/bin/papr-hook; systemctl restart {GATEWAY}")
    gated.virsh("undefine", "crowd")
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6


def test_broken_configuration(gated: BootedHost) -> None:
    """Definitions go on as they are, and the journal says which line is wrong."""
    gated.write(CONF, "[papr-hook]\nspares = many\n")
    gated.run("systemctl", "restart", GATEWAY)
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 1
    assert in_journal(gated, rf"goes to libvirt as it is: {CONF}: line 2: spares = 'many' is not a number")


def test_unusual_socket(host: BootedHost) -> None:
    """Where somebody has moved libvirtd's socket, that is said, and nothing is done."""
    host.write("/etc/systemd/system/libvirtd.socket.d/own.conf", "[Socket]\nListenStream=/run/libvirt/second\n")
    try:
        assert "libvirtd.socket listens at " in refused(host, "systemctl daemon-reload")
    finally:
        host.sh("rm -r /etc/systemd/system/libvirtd.socket.d; systemctl daemon-reload")
        host.sh("systemctl stop libvirtd.service libvirtd.socket; systemctl start libvirtd.socket libvirtd.service")


def test_libvirtd_that_makes_its_own_sockets(host: BootedHost) -> None:
    """Without socket activation, unix_sock_dir moves them; clients find all of them where they were."""
    sockets = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"
    host.sh(f"systemctl stop libvirtd.service {sockets}; systemctl mask --runtime {sockets}")
    host.sh("cp -p /etc/libvirt/libvirtd.conf /srv/libvirtd.conf; systemctl start libvirtd.service")
    try:
        mode = host.sh(f"stat -c '%a %U %G' {CLIENTS}").stdout
        before = snapshot(host)
        install(host)
        assert host.sh(f"stat -c '%a %U %G' {CLIENTS}").stdout == mode
        host.virsh("define", "/dev/stdin", input=CROWDED)
        assert pci_roots(host) == 6
        host.run("virsh", "-r", "-c", "qemu:///system", "uri")
        host.run("virt-admin", "uri")
        install(host)
        host.sh(f"systemctl restart libvirtd; systemctl kill -s KILL {GATEWAY}")
        wait_until(lambda: answers(host))
        host.sh("systemctl stop libvirtd")
        install(host)
        host.sh("systemctl start libvirtd")
        host.virsh("undefine", "crowd")
        host.virsh("define", "/dev/stdin", input=CROWDED)
        assert pci_roots(host) == 6
        install(host, "--uninstall")
        assert ours(snapshot(host)) == ours(before)
        assert host.sh("cmp /etc/libvirt/libvirtd.conf /srv/libvirtd.conf").returncode == 0
        for virsh in (["virsh"], ["virsh", "-r"], ["virt-admin"]):
            host.run(*virsh, "uri")
        assert host.sh("find /run/libvirt -type l").stdout == ""
        host.write("/etc/libvirt/libvirtd.conf", 'unix_sock_dir = "/run/elsewhere"\n')
        assert "sets unix_sock_dir already" in refused(host)
    finally:
        host.sh(f"virsh undefine crowd; {INSTALL} --uninstall; cp -p /srv/libvirtd.conf /etc/libvirt/libvirtd.conf")
        host.sh(f"systemctl stop libvirtd; systemctl unmask --runtime {sockets}; systemctl start {sockets}")


def test_libvirt_that_does_not_come_back(host: BootedHost) -> None:
    """The installation undoes all that it did, and says why."""
    before = snapshot(host)
    host.write(
        "/srv/no-libvirtd", '#!/bin/sh\n[ "$1" != --version ] || exec /usr/sbin/libvirtd.real --version\nexit 1\n'
    )
    host.sh("mv /usr/sbin/libvirtd /usr/sbin/libvirtd.real; install -m 755 /srv/no-libvirtd /usr/sbin/libvirtd")
    try:
        done = host.run(INSTALL, check=False)
        assert done.returncode == 1
        assert re.fullmatch(r"install.sh: libvirtd does not .*; nothing has changed.*\n", done.stderr), done.stderr
    finally:
        host.sh("mv /usr/sbin/libvirtd.real /usr/sbin/libvirtd")
        host.sh("systemctl reset-failed; systemctl start libvirtd.socket libvirtd-ro.socket libvirtd.service")
    assert snapshot(host) == before
    assert answers(host)


def test_units_are_well_formed(gated: BootedHost) -> None:
    """systemd finds nothing wrong with them, and the gateway has few rights."""
    verify(gated, "libvirtd")
    gated.run("systemd-analyze", "security", "--threshold=25", f"{GATEWAY}.service")


def test_gateway_has_no_more_rights_than_it_needs(gated: BootedHost) -> None:
    """Its process has the capabilities to become somebody else, and root's on files, and no others."""
    assert answers(gated)
    pid = gated.run("systemctl", "show", "-p", "MainPID", "--value", GATEWAY).stdout.strip()
    status = gated.run("cat", f"/proc/{pid}/status").stdout
    needed = 1 << 1 | 1 << 6 | 1 << 7  # CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID
    assert re.findall(r"CapBnd:\s+(\S+)", status) == [f"{needed:016x}"]
    assert directly(gated, "uri").returncode == 0
    assert CLIENTS in gated.run("cat", "/proc/net/unix").stdout


@pytest.mark.parametrize("release", RELEASES)
def test_host_that_shuts_down(roots: dict[str, Path], release: str) -> None:
    """libvirt-guests, which saves the guests then, finds libvirt through the gateway as long as libvirtd is there.

    Its unit comes before libvirtd's own socket only: that it also comes before libvirtd is an administrator's.
    """
    with started(roots, release, f"{release}-down") as host:
        install(host)
        host.write("/etc/default/libvirt-guests", "ON_SHUTDOWN=suspend\n")
        host.write("/etc/systemd/system/libvirt-guests.service.d/own.conf", "[Unit]\nAfter=libvirtd.service\n")
        host.run("rm", "/etc/systemd/system/libvirt-guests.service")
        host.sh("systemctl daemon-reload; systemctl start libvirt-guests")
        host.virsh("define", "/dev/stdin", input=CROWDED)
        host.virsh("start", "crowd")
        with host.shut_down("/var/lib/libvirt/qemu/save") as saved:
            assert os.listdir(saved) == ["crowd.save"]
