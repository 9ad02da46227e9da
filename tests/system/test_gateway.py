"""The gateway as install.sh sets it up, on hosts with systemd, polkit and a socket-activated libvirtd."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.harness.booted_host import BootedHost
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
    pci_roots,
    refused,
    verify,
)


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
    """The gateway's socket has the mode, owner and group of libvirtd's, also once those change; all are put back."""
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
        host.write("/etc/systemd/system/libvirtd.socket.d/own.conf", "[Socket]\nSocketMode=0600\nSocketUser=daemon\n")
        host.sh(again)
        assert host.sh(f"stat -c '%a %U %G' {UPSTREAM} {CLIENTS}").stdout == 2 * "600 daemon daemon\n"
        host.write("/etc/systemd/system/libvirtd.socket.d/own.conf", "[Socket]\nSocketMode=0660\nSocketGroup=libvirt\n")
        host.sh(again)
        install(host, "--uninstall")
        assert host.sh(list_sockets).stdout == before
        assert host.sh("ls /run/libvirt/upstream", check=False).returncode != 0
        assert answers(host)
    finally:
        host.sh(f"{INSTALL} --uninstall; rm -r /etc/systemd/system/libvirtd.socket.d; {again}")


def test_who_needs_libvirtd_runs_again(host: BootedHost) -> None:
    """A service that systemd stops with libvirtd starts with it again, and --dry-run names it."""
    unit = "[Unit]\nRequires={}\nAfter={}\n[Service]\nExecStart=/usr/bin/sleep infinity\n"
    host.write("/etc/systemd/system/manager.service", unit.format("libvirtd.service", "libvirtd.service"))
    host.write("/etc/systemd/system/agent.service", unit.format("manager.service", "manager.service"))
    host.sh("systemctl daemon-reload; systemctl start agent.service")
    try:
        said = " ".join(install(host, "--dry-run").split())
        assert "libvirtd would be restarted, and agent.service manager.service with it; running guests are not" in said
        for options in ([], ["--uninstall"]):
            said = " ".join(install(host, *options).split())
            assert "libvirtd was restarted, and agent.service manager.service with it; running guests are not" in said
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
    """After a restart of either of the two, libvirt answers through the gateway."""
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


def test_unusual_socket(host: BootedHost) -> None:
    """A socket that the administrator has moved is named, and nothing is installed."""
    host.write("/etc/systemd/system/libvirtd.socket.d/own.conf", "[Socket]\nListenStream=/run/libvirt/second\n")
    try:
        assert "libvirtd.socket listens at " in refused(host, "systemctl daemon-reload")
    finally:
        host.sh("rm -r /etc/systemd/system/libvirtd.socket.d; systemctl daemon-reload")
        host.sh("systemctl stop libvirtd.service libvirtd.socket; systemctl start libvirtd.socket libvirtd.service")


def test_units_are_well_formed(gated: BootedHost) -> None:
    """systemd finds nothing wrong with them, and the gateway has few rights."""
    verify(gated, "libvirtd")
    gated.run("systemd-analyze", "security", "--threshold=25", f"{GATEWAY}.service")


def test_gateway_has_no_more_rights_than_it_needs(gated: BootedHost) -> None:
    """Its process has the capabilities to assume another identity, and root's on files, and no others."""
    assert answers(gated)
    pid = gated.run("systemctl", "show", "-p", "MainPID", "--value", GATEWAY).stdout.strip()
    status = gated.run("cat", f"/proc/{pid}/status").stdout
    needed = 1 << 1 | 1 << 6 | 1 << 7  # CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID
    assert re.findall(r"CapBnd:\s+(\S+)", status) == [f"{needed:016x}"]
    assert directly(gated, "uri").returncode == 0
    assert CLIENTS in gated.run("cat", "/proc/net/unix").stdout
