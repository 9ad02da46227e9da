"""Compare where libvirt alone puts the first emulated NIC and the host devices with where they are after a layout.

Each domain XML is defined twice, as it is and laid out. The host's PCI devices and IOMMU groups are faked.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import libvirt

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.model import Device, Guest, PciAddress
from tests.helpers.libvirt_view import made_of
from tests.helpers.sysfs import GROUPS, write_sysfs

OTHER_MACHINES = {"x86-in.xml", "powernv-in.xml"}


class FakedHost:
    """A libvirt host whose PCI devices are what a test writes."""

    def __init__(self, uri: str, tree: Path, root: str = "") -> None:
        """Connect to a host.

        Args:
            uri: Its libvirt.
            tree: A sysfs tree, whose bus/pci the host has in place of its own.
            root: What the host's own paths have in front of them in the path of the tree.
        """
        self.tree = tree
        self._root = root
        (tree / "bus/pci/devices").mkdir(parents=True, exist_ok=True)
        self.connection = libvirt.open(uri)

    def show(self, groups: Mapping[PciAddress, int]) -> None:
        """Replace all PCI devices."""
        for name in ("devices", "kernel"):
            shutil.rmtree(self.tree / name, ignore_errors=True)
        for link in (self.tree / "bus/pci/devices").iterdir():
            link.unlink()
        write_sysfs(self.tree, {str(address): group for address, group in groups.items()})
        if self._root:
            self._point_inside()

    def _point_inside(self) -> None:
        """Make the links lead where the host sees the tree."""
        for link in self.tree.rglob("*"):
            if link.is_symlink():
                target = str(link.readlink()).removeprefix(self._root)
                link.unlink()
                link.symlink_to(target)


def own_groups(xml: bytes) -> dict[PciAddress, int]:
    """Return an IOMMU group for each slot of the host devices in domain XML: that of the golden pairs, or a new one."""
    guest = domainxml.read(xml).guest
    sources = [device.source for device in guest.devices if device.source is not None] if guest is not None else []
    slots = sorted({(source.domain, source.bus, source.slot) for source in sources})
    return {s: GROUPS.get(str(s), 100 + slots.index((s.domain, s.bus, s.slot))) for s in sources}


def place(guest: Guest, device: Device) -> tuple[int | None, PciAddress | None]:
    """Return the target index and the address of a device."""
    address = device.address
    return (next((p.target for p in guest.phbs if address and p.index == address.bus), None), address)


def owner(nics: list[Device], guest: Guest) -> int | None:
    """Return the position of the NIC that vPHB 0 belongs to, or None if libvirt alone keeps it off PHB 0."""
    bridged = {bridge.index for bridge in guest.bridges}
    emulated = [number for number, nic in enumerate(nics) if not nic.passthrough]
    on_bus_0 = [n for n in emulated if (at := nics[n].address) is not None and at.bus == 0]
    without = [n for n in emulated if (at := nics[n].address) is None or at.bus in bridged]
    first = next(iter(on_bus_0 or without), None)
    return None if first is None or (nics[first].address is not None and not on_bus_0) else first


def check(faked: FakedHost, xml: bytes, groups: Mapping[PciAddress, int], sysfs: Path) -> bool:
    """Define domain XML as it is and laid out, compare, and return whether libvirt takes both.

    Args:
        faked: The host.
        xml: The domain XML.
        groups: Its host devices with their IOMMU groups.
        sysfs: A tree that shows the same to papr-hook.
    """
    faked.show(groups)
    analysis = pipeline.analyze(xml, Config(sysfs=sysfs))
    result = analysis.apply_layout()
    before = domainxml.read(xml).guest
    if result.layout is None or before is None:
        return False
    try:
        alone, through = made_of(faked.connection, xml), made_of(faked.connection, result.data)
    except libvirt.libvirtError:
        return False
    nics = [[d for d in guest.devices if d.is_interface] for guest in (before, alone, through)]
    first = owner(nics[0], before)
    moved_there = any(
        was.address is not None and was.address.bus != 0 and now.address is not None and now.address.bus == 0
        for was, now in zip(nics[0], nics[2])
    )
    if first is not None and not moved_there:
        assert place(through, nics[2][first]) == place(alone, nics[1][first])
    for one, other in zip(host_devices(alone), host_devices(through)):
        if exclusive(alone, one, groups):
            assert (other.address and other.address.bus) == (one.address and one.address.bus), one
    return True


def host_devices(guest: Guest) -> list[Device]:
    """Return the passed-through devices, those in <interface> first."""
    found = [device for device in guest.devices if device.source is not None]
    return sorted(found, key=lambda device: not device.is_interface)


def exclusive(guest: Guest, device: Device, groups: Mapping[PciAddress, int]) -> bool:
    """Return whether a host device's IOMMU group is on one vPHB, alone."""
    if device.source is None or device.source not in groups or device.address is None:
        return False
    beside = [d for d in guest.devices if d.address is not None and d.address.bus == device.address.bus]
    members = [d for d in guest.devices if d.source is not None and groups.get(d.source) == groups[device.source]]
    return sorted(map(str, beside)) == sorted(map(str, members))
