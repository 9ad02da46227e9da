"""The gateway as install.sh sets it up on a host without systemd, whose scripts start and stop it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.booted_host import BootedHost, SysvHost, make_root
from tests.helpers.hosts_page import SYSVINIT, assert_described
from tests.helpers.installation import CLIENTS, CROWDED, INSTALL, answers, install, ours, pci_roots, snapshot
from tests.helpers.polling import wait_until


@pytest.fixture(scope="module")
def host(cache: Path) -> Iterator[BootedHost]:
    """Boot a host with sysvinit and a copy of the project: each test leaves it as it found it."""
    with SysvHost(make_root("bookworm", cache, "sysvinit"), "sysv") as one:
        one.copy_project()
        yield one


def test_the_page_of_hosts_is_true(host: BootedHost) -> None:
    """docs/hosts.md has the host's versions."""
    assert_described(SYSVINIT, host.daemon, lambda *argv: host.run(*argv).stdout)


def left(host: BootedHost) -> str:
    """Processes and links that a gateway could leave."""
    return host.sh("pgrep -f '[p]apr-hook gateway'; find /run/libvirt /etc/rc?.d -name '*papr*'", check=False).stdout


def test_installed_and_taken_away(host: BootedHost) -> None:
    """Clients of all sockets find them where they were; nothing of it is left, and no process."""
    list_sockets = "cd /run/libvirt; stat -L -c '%n %a %U %G' *libvirt*-sock*"
    before, sockets = snapshot(host), host.sh(list_sockets).stdout
    said = install(host)
    assert "libvirtd was restarted; running guests are not affected" in " ".join(said.split())
    assert host.sh(list_sockets).stdout == sockets
    host.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(host) == 6
    host.run("virsh", "-r", "uri")
    host.run("virt-admin", "uri")
    assert "restarted" not in install(host)
    assert answers(host)
    install(host, "--uninstall")
    host.virsh("undefine", "crowd")
    assert ours(snapshot(host)) == ours(before)
    assert left(host) == ""
    host.run("virsh", "-r", "uri")


def test_order_at_boot_and_shutdown(gated: BootedHost) -> None:
    """The place of libvirt's sockets comes before libvirtd; libvirt-guests finds the gateway there, both ways."""
    wanted = ["papr-hook-upstream", "libvirtd", "papr-hook-gateway", "libvirt-guests"]
    starts = [gated.sh(f"basename /etc/rc2.d/S[0-9][0-9]{name}").stdout[1:3] for name in wanted]
    assert starts == sorted(set(starts))
    guests, gateway = (gated.sh(f"basename /etc/rc0.d/K[0-9][0-9]{name}").stdout for name in reversed(wanted[2:]))
    assert guests[1:3] < gateway[1:3]


def test_gateway_that_dies(gated: BootedHost) -> None:
    """Clients go past it until it is there again, which it soon is."""
    gated.sh("mv /usr/bin/papr-hook /usr/bin/aside; pkill -KILL -f 'python3 .*papr-hook [g]ateway'")
    wait_until(lambda: gated.sh(f"readlink {CLIENTS}", check=False).stdout == "upstream/libvirt-sock\n")
    assert answers(gated)
    gated.sh("mv /usr/bin/aside /usr/bin/papr-hook")
    wait_until(lambda: gated.sh(f"readlink {CLIENTS}", check=False).stdout == "")
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    assert pci_roots(gated) == 6


def test_installed_while_libvirtd_is_stopped(host: BootedHost) -> None:
    """libvirtd can be started then, and has its gateway."""
    host.run("service", "libvirtd", "stop")
    try:
        install(host)
        host.run("service", "libvirtd", "start")
        wait_until(lambda: answers(host))
        host.virsh("define", "/dev/stdin", input=CROWDED)
        assert pci_roots(host) == 6
        host.virsh("undefine", "crowd")
        host.run("service", "libvirtd", "stop")
        install(host, "--uninstall")
    finally:
        host.run("service", "libvirtd", "start")
    wait_until(lambda: answers(host))
    assert left(host) == ""


def test_libvirt_that_does_not_come_back(host: BootedHost) -> None:
    """The installation undoes all that it did; libvirtd can be started as ever."""
    before = snapshot(host)
    real = "/usr/sbin/libvirtd.real"
    host.sh(f"cp -p /usr/sbin/libvirtd {real}; rm /usr/sbin/libvirtd")
    host.write("/usr/sbin/libvirtd", f'#!/bin/sh\n[ "$1" != --version ] || exec {real} --version\nexit 1\n', 0o755)
    try:
        done = host.run(INSTALL, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("install.sh: libvirtd does not ")
        assert "; nothing has changed" in done.stderr
    finally:
        host.sh(f"mv {real} /usr/sbin/libvirtd; service libvirtd start")
    assert ours(snapshot(host)) == ours(before)
    wait_until(lambda: answers(host))
    assert left(host) == ""
