"""The gateway in front of virtqemud, on hosts with systemd.

No Debian release has modular daemons. A copy of libvirtd serves virtqemud's socket, under units that depend on each
other as those of libvirt 11 do (src/qemu/virtqemud.service.extra.in, src/remote/libvirtd.socket.in).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.booted_host import BootedHost
from tests.helpers.installation import CROWDED, INSTALL, ours, pci_roots, snapshot, verify
from tests.helpers.polling import wait_until

SOCKET = "/run/libvirt/virtqemud-sock"
UPSTREAM = "/run/libvirt/upstream/virtqemud-sock"
GATEWAY = "papr-hook-gateway@virtqemud"

UNITS = {
    "virtqemud.socket": f"""\
[Unit]
Conflicts=libvirtd.socket
After=libvirtd.socket
[Socket]
ListenStream={SOCKET}
SocketMode=0666
RemoveOnStop=yes
FileDescriptorName=libvirtd.socket
""",
    "virtqemud.service": """\
[Unit]
BindsTo=virtqemud.socket
After=virtqemud.socket libvirtd.service
Conflicts=libvirtd.service
[Service]
Type=notify
ExecStart=/usr/sbin/virtqemud
KillMode=process
""",
}


@pytest.fixture(scope="module")
def modular(host: BootedHost) -> BootedHost:
    """A host whose clients come to virtqemud."""
    for name, text in UNITS.items():
        host.write(f"/etc/systemd/system/{name}", text)
    host.sh("cp /usr/sbin/libvirtd /usr/sbin/virtqemud; systemctl daemon-reload; systemctl start virtqemud.service")
    return host


@pytest.fixture
def gated(modular: BootedHost) -> Iterator[BootedHost]:
    """It with a gateway, which it is rid of afterwards."""
    modular.run(INSTALL)
    yield modular
    modular.sh(f"virsh -q undefine crowd; {INSTALL} --uninstall", check=False)


def answers(host: BootedHost) -> bool:
    """Whether libvirt answers clients of virtqemud's socket."""
    return host.run("virsh", "-c", f"qemu:///system?socket={SOCKET}", "uri", check=False).returncode == 0


def lays_out(host: BootedHost) -> bool:
    """Whether a definition is laid out on its way to virtqemud."""
    host.run("virsh", "-c", f"qemu:///system?socket={SOCKET}", "define", "/dev/stdin", input=CROWDED)
    found = host.run("virsh", "-c", f"qemu:///system?socket={UPSTREAM}", "dumpxml", "crowd").stdout.count("pci-root'")
    host.run("virsh", "-c", f"qemu:///system?socket={UPSTREAM}", "undefine", "crowd")
    return found == 6


def test_in_front_of_virtqemud(modular: BootedHost) -> None:
    """install.sh sets it up there, and takes it away again; libvirtd's socket is not touched."""
    before = snapshot(modular)
    said = modular.run(INSTALL).stdout
    assert f"{SOCKET} gateway; virtqemud's own socket is in upstream/" in " ".join(said.split())
    assert "libvirt-sock" not in said
    assert lays_out(modular)
    modular.run(INSTALL, "--uninstall")
    assert ours(snapshot(modular)) == ours(before)
    assert answers(modular)
    assert modular.sh("ls -d /run/libvirt/libvirt-sock /run/libvirt/upstream", check=False).stdout == ""


@pytest.mark.parametrize("unit", ["virtqemud.socket", "virtqemud.service", f"{GATEWAY}.service"])
def test_restarts(gated: BootedHost, unit: str) -> None:
    """After a restart of any of them, libvirt answers through the gateway."""
    gated.run("systemctl", "restart", unit)
    assert lays_out(gated)
    assert gated.run("systemctl", "is-active", GATEWAY).stdout == "active\n"


@pytest.mark.parametrize("mend", [f"systemctl restart {GATEWAY}", INSTALL], ids=["restart", "install.sh"])
def test_gateway_that_does_not_start(gated: BootedHost, mend: str) -> None:
    """Clients bypass it; after a restart or a new installation it is in front again."""
    gated.sh(f"mv /usr/bin/papr-hook /usr/bin/aside; systemctl stop {GATEWAY}")
    wait_until(lambda: answers(gated))
    assert gated.sh(f"readlink {SOCKET}").stdout == "upstream/virtqemud-sock\n"
    gated.sh(f"mv /usr/bin/aside /usr/bin/papr-hook; {mend}")
    assert lays_out(gated)
    assert gated.sh("ls /run/libvirt/libvirt-sock", check=False).returncode != 0


def test_units_are_well_formed(gated: BootedHost) -> None:
    """systemd finds nothing wrong with them."""
    verify(gated, "virtqemud")


def test_nothing_failed_is_left(gated: BootedHost) -> None:
    """After an uninstallation systemd has no failed unit of the gateway."""
    gated.sh(f"mv /usr/bin/papr-hook /usr/bin/aside; systemctl stop {GATEWAY}")
    wait_until(lambda: answers(gated))
    gated.run(INSTALL, "--uninstall")
    assert gated.sh("systemctl list-units --all --no-legend --plain 'papr-hook-*'; rm /usr/bin/aside").stdout == ""
    assert answers(gated)


def test_back_to_libvirtd(gated: BootedHost) -> None:
    """Where an administrator goes back to libvirtd, its gateway is there."""
    gated.sh("systemctl start libvirtd.socket")
    try:
        gated.virsh("define", "/dev/stdin", input=CROWDED)
        assert pci_roots(gated) == 6
        gated.virsh("undefine", "crowd")
    finally:
        gated.sh("systemctl start virtqemud.socket")
    assert lays_out(gated)
