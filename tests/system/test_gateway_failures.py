"""The gateway on hosts with systemd when it, or libvirt, fails."""

from __future__ import annotations

import re

import pytest

from tests.harness.booted_host import RELEASES, BootedHost
from tests.harness.modular import MODULAR
from tests.helpers.installation import (
    CONF,
    CROWDED,
    INSTALL,
    answers,
    in_journal,
    pci_roots,
    snapshot,
)
from tests.helpers.polling import wait_until

pytestmark = pytest.mark.parametrize("host", (*RELEASES, MODULAR), indirect=True, scope="module")


def test_libvirt_that_fails(gated: BootedHost) -> None:
    """Where systemd gives the daemon's socket up, clients are told what they are told without a gateway."""
    conf = f"/etc/libvirt/{gated.daemon}.conf"
    gated.sh(f"systemctl stop {gated.daemon}.service; cp -p {conf} /srv/own.conf; echo noise >>{conf}")
    try:
        wait_until(lambda: "No such file or directory" in gated.virsh("uri", check=False).stderr)
    finally:
        gated.sh(f"mv /srv/own.conf {conf}; systemctl reset-failed; systemctl start {gated.daemon}.socket")
    assert answers(gated)
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6


def test_killed(gated: BootedHost) -> None:
    """kill -9 of the gateway: those who are served stay served, and the next client is."""
    kill = f"systemctl kill --kill-whom=main -s KILL {gated.gateway}"
    script = f"(echo hostname; sleep 1; {kill}; sleep 1; echo uri) | virsh -q"
    said = gated.sh(script)
    assert "qemu:///system" in said.stdout
    assert said.stderr == ""
    assert answers(gated)


def test_gateway_that_does_not_start(gated: BootedHost) -> None:
    """Clients bypass it, and the journal says so; after a restart it is in front again."""
    gated.sh(f"mv /usr/bin/papr-hook /usr/bin/aside; systemctl stop {gated.gateway}")
    wait_until(lambda: answers(gated))
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 1
    assert in_journal(gated, f"the gateway for {gated.daemon} cannot be started, so clients bypass it")
    gated.sh(f"mv /usr/bin/aside /usr/bin/papr-hook; systemctl restart {gated.gateway}")
    gated.virsh("undefine", "crowd")
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6


def test_broken_configuration(gated: BootedHost) -> None:
    """Definitions go on as they are, and the journal says which line is wrong."""
    gated.write(CONF, "[papr-hook]\nspares = many\n")
    gated.run("systemctl", "restart", gated.gateway)
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 1
    assert in_journal(gated, rf"{CONF}: line 2: .*many")


def test_libvirt_that_does_not_come_back(host: BootedHost) -> None:
    """The installation undoes all that it did, and says why."""
    before = snapshot(host)
    binary = f"/usr/sbin/{host.daemon}"
    host.write("/srv/no-daemon", f'#!/bin/sh\n[ "$1" != --version ] || exec {binary}.real --version\nexit 1\n')
    host.sh(f"mv {binary} {binary}.real; install -m 755 /srv/no-daemon {binary}")
    try:
        done = host.run(INSTALL, check=False)
        assert done.returncode == 1
        assert re.fullmatch(rf"install.sh: {host.daemon} does not .*; nothing has changed.*\n", done.stderr), (
            done.stderr
        )
    finally:
        host.sh(f"mv {binary}.real {binary}; systemctl reset-failed; systemctl start {host.units}")
    assert snapshot(host) == before
    assert answers(host)


def test_bypass_ends_by_itself(gated: BootedHost) -> None:
    """Once the gateway can be started again it is in front again, and no administrator has to come."""
    gated.sh(f"mv /usr/bin/papr-hook /usr/bin/aside; systemctl stop {gated.gateway}")
    wait_until(lambda: answers(gated))
    assert gated.sh(f"readlink {gated.clients}").stdout == f"upstream/{gated.clients.rpartition('/')[2]}\n"
    gated.sh("mv /usr/bin/aside /usr/bin/papr-hook")
    wait_until(lambda: gated.sh(f"systemctl is-active {gated.gateway}", check=False).stdout == "active\n")
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6
    assert gated.sh(f"systemctl is-active papr-hook-bypass@{gated.daemon}", check=False).stdout == "inactive\n"


def test_killed_again_and_again(gated: BootedHost) -> None:
    """However often the kernel kills the gateway for memory, the next client is served by it."""
    gated.sh("journalctl --rotate --vacuum-time=1s -q")
    for _ in range(7):
        gated.sh(f"systemctl kill --kill-whom=main -s KILL {gated.gateway}")
        assert answers(gated)
    assert not in_journal(gated, "bypass")
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6
