"""The gateway as install.sh sets it up, on hosts with systemd, polkit and a socket-activated libvirtd or virtqemud."""

from __future__ import annotations

import re

import pytest

from tests.harness.booted_host import RELEASES, BootedHost
from tests.harness.modular import MODULAR
from tests.helpers.hosts_page import assert_described
from tests.helpers.installation import (
    CROWDED,
    INSTALL,
    answers,
    crowd,
    directly,
    in_journal,
    install,
    pci_roots,
    refused,
    verify,
)

pytestmark = pytest.mark.parametrize("host", (*RELEASES, MODULAR), indirect=True, scope="module")


def test_the_page_of_hosts_is_true(host: BootedHost) -> None:
    """docs/hosts.md has the host's versions."""
    assert_described(host.name, host.daemon, lambda *argv: host.run(*argv).stdout)


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
    """The gateway's socket has the mode, owner and group of the daemon's, also once those change; all are put back."""
    own = f"/etc/systemd/system/{host.daemon}.socket.d"
    list_sockets = f"cd /run/libvirt; stat -c '%n %a %U %G' {host.clients}* 2>&1"
    host.write(f"{own}/own.conf", "[Socket]\nSocketMode=0660\nSocketGroup=libvirt\n")
    again = f"systemctl daemon-reload; for verb in stop reset-failed start; do systemctl $verb {host.units}; done"
    host.sh(again)
    try:
        before = host.sh(list_sockets).stdout
        assert f"{host.clients} 660 root libvirt" in before
        install(host)
        assert host.sh(list_sockets).stdout == before
        assert host.sh(f"stat -c '%a %U %G' {host.upstream}").stdout == "660 root libvirt\n"
        for socket in (f"{host.clients}-ro", host.clients):
            assert host.run("virsh", "-c", f"qemu:///system?socket={socket}", "-r", "uri").returncode == 0
        host.write(f"{own}/own.conf", "[Socket]\nSocketMode=0600\nSocketUser=daemon\n")
        host.sh(again)
        assert host.sh(f"stat -c '%a %U %G' {host.upstream} {host.clients}").stdout == 2 * "600 daemon daemon\n"
        host.write(f"{own}/own.conf", "[Socket]\nSocketMode=0660\nSocketGroup=libvirt\n")
        host.sh(again)
        install(host, "--uninstall")
        assert host.sh(list_sockets).stdout == before
        assert host.sh("ls /run/libvirt/upstream", check=False).returncode != 0
        assert answers(host)
    finally:
        host.sh(f"{INSTALL} --uninstall; rm -r {own}; {again}")


def test_who_needs_the_daemon_runs_again(host: BootedHost) -> None:
    """A service that systemd stops with the daemon starts with it again, and --dry-run names it."""
    unit = "[Unit]\nRequires={0}\nAfter={0}\n[Service]\nExecStart=/usr/bin/sleep infinity\n"
    host.write("/etc/systemd/system/manager.service", unit.format(f"{host.daemon}.service"))
    host.write("/etc/systemd/system/agent.service", unit.format("manager.service"))
    host.sh("systemctl daemon-reload; systemctl start agent.service")
    restarted = "restarted, and agent.service manager.service with it; running guests are not"
    try:
        said = " ".join(install(host, "--dry-run").split())
        assert f"{host.daemon} would be {restarted}" in said
        for options in ([], ["--uninstall"]):
            said = " ".join(install(host, *options).split())
            assert f"{host.daemon} was {restarted}" in said
            assert host.sh("systemctl is-active manager agent").stdout == "active\nactive\n"
    finally:
        host.sh("systemctl stop manager.service; rm /etc/systemd/system/manager.service")
        host.sh("rm /etc/systemd/system/agent.service; systemctl daemon-reload")


def test_hook_only(gated: BootedHost) -> None:
    """--hook-only moves no socket, and takes a gateway away that was there."""
    said = install(gated, "--hook-only")
    assert "refused at its next cold start" in " ".join(said.split())
    assert gated.sh(f"ls {gated.upstream}", check=False).returncode != 0
    with crowd(gated):
        assert gated.virsh("start", "--paused", "crowd", check=False).returncode == 1
    assert install(gated, "--hook-only").count("restarted") == 0


def test_clients_that_are_there_stay(gated: BootedHost) -> None:
    """A newer version over an older one cuts nobody off: not its clients, not the daemon's."""
    pid = gated.sh(f"pidof {gated.daemon}").stdout
    script = f"(uname >/dev/null; echo hostname; {INSTALL} >/dev/null; echo uri) | virsh -q -c qemu:///system"
    said = gated.sh(script)
    assert "qemu:///system" in said.stdout, said
    assert said.stderr == ""
    assert gated.sh(f"pidof {gated.daemon}").stdout == pid


@pytest.mark.parametrize("unit", ["{0.daemon}.socket", "{0.gateway}.service"], ids=["daemon's socket", "gateway"])
def test_restarts(gated: BootedHost, unit: str) -> None:
    """After a restart of either of the two, libvirt answers through the gateway."""
    gated.sh(f"systemctl stop {gated.daemon}.service; systemctl restart {unit.format(gated)}")
    assert answers(gated)
    assert gated.run("systemctl", "is-active", gated.gateway).stdout == "active\n"


def test_libvirt_stops_and_starts(gated: BootedHost) -> None:
    """Without libvirt a client is told what it is told without a gateway; with it, it is served again."""
    gated.sh(f"systemctl stop {gated.units}")
    said = gated.virsh("uri", check=False).stderr
    assert "No such file or directory" in said
    gated.sh(f"systemctl start {gated.units.partition(' ')[2]}")
    assert answers(gated)


def test_unusual_socket(host: BootedHost) -> None:
    """A socket that the administrator has moved is named, and nothing is installed."""
    own = f"/etc/systemd/system/{host.daemon}.socket.d"
    host.write(f"{own}/own.conf", "[Socket]\nListenStream=/run/libvirt/second\n")
    try:
        assert f"{host.daemon}.socket listens at " in refused(host, "systemctl daemon-reload")
    finally:
        host.sh(f"rm -r {own}; systemctl daemon-reload; systemctl stop {host.units}; systemctl start {host.units}")


def test_units_are_well_formed(gated: BootedHost) -> None:
    """systemd finds nothing wrong with them, and the gateway has few rights."""
    verify(gated)
    gated.run("systemd-analyze", "security", "--threshold=25", f"{gated.gateway}.service")


def test_gateway_has_no_more_rights_than_it_needs(gated: BootedHost) -> None:
    """Its process has the capabilities to assume another identity, and root's on files, and no others."""
    assert answers(gated)
    pid = gated.run("systemctl", "show", "-p", "MainPID", "--value", gated.gateway).stdout.strip()
    status = gated.run("cat", f"/proc/{pid}/status").stdout
    needed = 1 << 1 | 1 << 6 | 1 << 7  # CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID
    assert re.findall(r"CapBnd:\s+(\S+)", status) == [f"{needed:016x}"]
    assert directly(gated, "uri").returncode == 0
    assert gated.clients in gated.run("cat", "/proc/net/unix").stdout
