"""A guest's layout as nodes, from which a tree and a picture are drawn: each vPHB, and the devices on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from ..layout.capacity import empty_vphbs
from ..layout.groups import DeviceGroup, group_devices
from ..model import Bridge, Device, Guest, HostTopology, Phb
from .json import drc_index


class Style(Enum):
    """How a part of a node is drawn. The values are styles of rich."""

    PLAIN = ""
    NAME = "bold"
    DETAIL = "dim"
    SPARE = "green"
    ENDPOINT = "cyan"
    NOTE = "yellow"
    FAULT = "red"


class Kind(Enum):
    """What a node is."""

    GUEST = "guest"
    VPHB = "vphb"
    EMPTY = "empty"
    ENDPOINT = "endpoint"
    DEVICE = "device"
    NOTE = "note"
    FAULT = "fault"


@dataclass
class Node:
    """A guest, a vPHB, an endpoint, a device, or what should not be there: a bridge, or devices without a vPHB.

    Attributes:
        kind: What it is.
        parts: Its text, in parts with a style each.
        children: What is on it or behind it.
    """

    kind: Kind
    parts: list[tuple[str, Style]]
    children: list[Node] = field(default_factory=list)

    def add(self, kind: Kind, *parts: tuple[str, Style]) -> Node:
        """Add a child without the parts that are empty, and return it."""
        child = Node(kind, [part for part in parts if part[0]])
        self.children.append(child)
        return child


def describe(guest: Guest, topology: HostTopology, long: bool = False) -> Node:
    """Return a guest as its domain XML has it.

    A PCI domain is the target index of its vPHB (QEMU hw/ppc/spapr_pci.c, Linux
    arch/powerpc/kernel/pci-common.c).

    Args:
        guest: The guest.
        topology: What the host's sysfs has about its passed-through devices.
        long: Whether to add models, what backs devices on the host, and DRC indexes.
    """
    return _Description(guest, topology, long).root()


class _Description:
    """The nodes of one guest."""

    def __init__(self, guest: Guest, topology: HostTopology, long: bool) -> None:
        self._guest = guest
        self._topology = topology
        self._long = long
        self._groups = group_devices(guest, topology)
        self._buses = {phb.index for phb in guest.phbs} | {bridge.index for bridge in guest.bridges}

    def root(self) -> Node:
        """Return the guest."""
        guest = self._guest
        root = Node(Kind.GUEST, [(guest.name, Style.NAME), (_summary(guest), Style.PLAIN)])
        for phb in sorted(guest.phbs, key=lambda phb: phb.index):
            self._add_bus(self._add_phb(root, phb), phb.index, phb.target, {phb.index})
        reached = {phb.index for phb in guest.phbs}
        for bridge in guest.bridges:
            if bridge.address is None or bridge.address.bus not in self._buses:
                self._add_bus(_add_bridge(root, bridge), bridge.index, None, reached)
        unplaced = [g for g in self._groups if all(guest.devices[member].address is None for member in g.members)]
        if unplaced:
            branch = root.add(Kind.NOTE, ("no address; libvirt chooses one", Style.NOTE))
            for group in unplaced:
                self._add_group(branch, group, group.members, None)
        self._add_undefined_buses(root)
        return root

    def _add_phb(self, root: Node, phb: Phb) -> Node:
        guest = self._guest
        domain = f"PCI domain {phb.target:04x}" if phb.target is not None else "no target index"
        cell = f", NUMA cell {phb.node}" if phb.node is not None else ""
        index = f"DRC index {drc_index(phb.target)}" if self._long and phb.target is not None else ""
        in_use = any(d.address is not None and d.address.bus == phb.index for d in guest.devices)
        in_use |= any(b.address is not None and b.address.bus == phb.index for b in guest.bridges)
        state = ("", Style.PLAIN)
        if phb.index in guest.used_by_commandline:
            state = ("used by qemu:commandline", Style.NOTE)
        elif not in_use:
            state = ("spare", Style.SPARE) if phb.node is None else ("empty", Style.PLAIN)
        name = (f"vPHB {phb.index}", Style.NAME)
        kind = Kind.EMPTY if state[0] in ("spare", "empty") else Kind.VPHB
        # The cell follows the last of the two.
        texts = [f"{domain}{'' if index else cell}", f"{index}{cell if index else ''}"]
        return root.add(kind, name, *((text, Style.PLAIN) for text in texts), state)

    def _add_bus(self, branch: Node, bus: int, domain: int | None, seen: set[int]) -> None:
        """Add the devices on a bus, and on the buses behind it, to a branch."""
        for group in self._groups:
            addresses = ((member, self._guest.devices[member].address) for member in group.members)
            members = [member for member, address in addresses if address is not None and address.bus == bus]
            if members:
                self._add_group(branch, group, members, domain)
        for bridge in self._guest.bridges:
            plugged = bridge.address is not None and bridge.address.bus == bus
            if plugged and bridge.index not in seen:
                self._add_bus(_add_bridge(branch, bridge), bridge.index, None, seen | {bridge.index})

    def _add_group(self, branch: Node, group: DeviceGroup, members: Iterable[int], domain: int | None) -> None:
        if group.iommu_group is not None:
            group_name = (f"IOMMU group {group.iommu_group}", Style.PLAIN)
            branch = branch.add(Kind.ENDPOINT, ("endpoint", Style.ENDPOINT), group_name)
        for member in members:
            device = self._guest.devices[member]
            name = (device.name, Style.PLAIN)
            branch.add(Kind.DEVICE, (_place(device, domain), Style.PLAIN), name, (self._details(device), Style.DETAIL))

    def _add_undefined_buses(self, root: Node) -> None:
        """Add the devices whose bus no controller provides."""
        addresses = ((device, device.address) for device in self._guest.devices)
        devices = [(device, at) for device, at in addresses if at is not None and at.bus not in self._buses]
        if devices:
            branch = root.add(Kind.FAULT, ("on a bus that the domain XML does not define", Style.FAULT))
            for device, address in devices:
                branch.add(Kind.DEVICE, (str(address), Style.PLAIN), (device.name, Style.PLAIN))

    def _details(self, device: Device) -> str:
        """Return what is known of a device besides its name and address, or nothing."""
        facts = [fact for fact in (device.model, device.backing) if fact is not None] if self._long else []
        # A device without another name is named after its model.
        facts = [fact for fact in facts if not device.name.endswith(f" {fact}")]
        host = self._topology.devices.get(device.source) if device.source is not None else None
        if host is not None:
            facts += [f"driver {host.driver}" if host.driver is not None else "no driver"]
            facts += [f"node {host.node}"] if host.node is not None else []
            facts += [f"function of {host.parent}"] if host.parent is not None else []
        return ", ".join(facts)


def _summary(guest: Guest) -> str:
    empty = empty_vphbs(guest) - {bridge.address.bus for bridge in guest.bridges if bridge.address is not None}
    bridges = f", {_count(len(guest.bridges), 'bridge')}" if guest.bridges else ""
    return f"{_count(len(guest.phbs), 'vPHB')}, {len(empty)} spare{bridges}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _add_bridge(branch: Node, bridge: Bridge) -> Node:
    return branch.add(Kind.FAULT, (f"bus {bridge.index}", Style.FAULT), (bridge.model, Style.PLAIN))


def _place(device: Device, domain: int | None) -> str:
    """Return the address of a device in the guest, or "" if it has none."""
    at = device.address
    if at is None:
        return ""
    place = f"{at.slot:02x}.{at.function:x}"
    return f"{domain:04x}:00:{place}" if domain is not None else f"slot {place}"
