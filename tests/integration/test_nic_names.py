"""The names of network interfaces, with udev in a real guest as the judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from papr_hook import pipeline
from papr_hook.config import Config
from tests.harness import guest
from tests.harness.guest_image import Image
from tests.harness.libvirt_host import Host
from tests.helpers.cli import papr_hook
from tests.helpers.domain_xml import at, file_disk, mac, nic

NAMES = (
    "ln -sf /bin/udevadm /bin/systemd-udevd; mkdir -p /run/udev; systemd-udevd --daemon 2>/dev/null; "
    "udevadm trigger --action=add --subsystem-match=net; udevadm settle; "
    "for i in /sys/class/net/e*; do echo ${i##*/} $(cat $i/address) "
    "$(udevadm test-builtin net_id $i 2>/dev/null | sed -n s/^ID_NET_NAME_PATH=//p); done"
)
"""Has udev name the interfaces, and prints each one's name, MAC address and what net_id calls it."""

SCATTERED = (
    "<controller type='pci' index='0' model='pci-root'><target index='0'/></controller>"
    "<controller type='pci' index='1' model='pci-root'><target index='17'/></controller>"
    "<controller type='pci' index='2' model='pci-bridge'>"
    + at(0, 9)
    + "</controller>"
    + nic(1, at(0, 1))
    + nic(2, at(0, 3).replace("/>", " multifunction='on'/>"), model="e1000e")
    + nic(3, at(0, 3, 1), model="e1000e")
    + nic(4, at(1, 16))
    + nic(5, at(1, 17).replace("/>", " multifunction='on'/>"))
    + nic(6, at(2, 5))
)
"""NICs on vPHB 0, in a multifunction slot, on a vPHB with an odd target index, and behind a bridge."""


@pytest.fixture
def console(root: Path) -> Iterator[Path]:
    """A file for the guest's console."""
    file = root / "names.console"
    yield file
    file.unlink(missing_ok=True)


def boot(host: Host, name: str, console: Path, links: Path | None = None) -> dict[str, str]:
    """Boot a guest, have udev name its interfaces, and return the names by MAC address.

    Args:
        host: The host of the guest.
        name: The guest, which is ended first if it runs.
        console: The file with its console.
        links: .link files that the guest has.
    """
    host.virsh("destroy", name, check=False)
    console.unlink(missing_ok=True)
    host.virsh("start", name)
    guest.wait_for(console)
    for file in sorted(links.iterdir()) if links is not None else ():
        lines = " ".join(f"'{line}'" for line in file.read_text().splitlines())
        directory = "/etc/systemd/network"
        guest.command(host, name, f"mkdir -p {directory}; printf '%s\\n' {lines} >{directory}/{file.name}")
    names = {}
    for line in guest.command(host, name, NAMES, timeout=120).splitlines():
        interface, mac, by_path = line.split()
        assert links is not None or interface == by_path
        names[mac] = interface
    host.virsh("destroy", name)
    return names


def test_udev_agrees_before_and_after(host: Host, image: Image, console: Path, tmp_path: Path) -> None:
    """Old and new names are those that udev gives, and the .link files keep the old ones."""
    host.define(guest.domain("names", image, console, SCATTERED))
    try:
        xml = host.dumpxml("names", "--inactive", "--security-info")
        result = pipeline.analyze(xml.encode(), Config()).apply_layout()
        old = boot(host, "names", console)
        links = tmp_path / "links"
        adopted = papr_hook(
            "adopt", "-c", host.uri, "--yes", "--backups", str(tmp_path / "backups"), "--links", str(links), "names"
        )
        assert adopted.status == 0, adopted.err
        new = boot(host, "names", console)
        moved = {move.mac: move for move in result.moves}
        for mac in old:
            if mac not in moved:
                assert new[mac] == old[mac]
            else:
                assert moved[mac].old_name in (old[mac], None)
                assert moved[mac].new_name == new[mac]
                assert f"{moved[mac].old_name or ''} to {new[mac]}" in adopted.out or moved[mac].old_name is None
        behind_a_bridge = [mac for mac, move in moved.items() if move.old_name is None]
        assert len(behind_a_bridge) == 1
        assert len(moved) >= 4
        (files,) = links.iterdir()
        kept = boot(host, "names", console, files)
        assert {mac: kept[mac] for mac in kept if mac not in behind_a_bridge} == {
            mac: old[mac] for mac in old if mac not in behind_a_bridge
        }
    finally:
        host.virsh("destroy", "names", check=False)
        host.virsh("undefine", "names")


def test_names_stay_over_adoption_redefinition_and_hard_reboot(
    host: Host, image: Image, console: Path, disk: Path, tmp_path: Path
) -> None:
    """The one NIC of a guest has the same name before and after all that its clients do."""
    plain = guest.domain("stays", image, console, nic(1))
    host.define(plain)
    try:
        before = boot(host, "stays", console)
        assert list(before.values()) == ["enp0s1"]
        adopted = papr_hook("adopt", "-c", host.uri, "--yes", "--backups", str(tmp_path / "backups"), "stays")
        assert adopted.status == 0, adopted.err
        assert "nic-renamed" not in adopted.out
        assert boot(host, "stays", console) == before
        again = guest.domain("stays", image, console, file_disk(disk, "vda") + nic(1) + nic(2))
        uuid = host.virsh("domuuid", "stays").stdout.strip()
        again = again.replace("</name>", f"</name><uuid>{uuid}</uuid>", 1)
        file = tmp_path / "again.xml"
        file.write_text(again)
        host.define(papr_hook("layout", "--previous", str(_dumped(host, "stays", tmp_path)), str(file)).out)
        names = boot(host, "stays", console)
        assert names[mac(1)] == "enp0s1"
        assert names[mac(2)] == "enP30p0s1"
        assert boot(host, "stays", console) == names
    finally:
        host.virsh("destroy", "stays", check=False)
        host.virsh("undefine", "stays")


def _dumped(host: Host, name: str, directory: Path) -> Path:
    """Return a file with the domain XML that libvirt has."""
    file = directory / "before.xml"
    file.write_text(host.dumpxml(name, "--inactive"))
    return file
