"""A guest's layout as a tree: each vPHB and the devices on it, with their addresses in the guest."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from ..layout.capacity import empty_vphbs
from ..layout.groups import DeviceGroup, group_devices
from ..model import Bridge, Device, Guest, HostTopology, Phb
from .json import drc_index

_SVG_WIDTH = 110
"""The width of a picture in characters."""


def draw(guest: Guest, topology: HostTopology, out: TextIO, long: bool = False) -> bytes:
    """Return a guest as a tree, as its domain XML has it.

    A PCI domain is the target index of its vPHB (QEMU hw/ppc/spapr_pci.c, Linux
    arch/powerpc/kernel/pci-common.c).

    Args:
        guest: The guest.
        topology: What the host's sysfs has about its passed-through devices.
        out: Where the tree will be printed. On a terminal it has colours and wraps at the terminal's width.
        long: Whether to add models, what backs devices on the host, and DRC indexes.
    """
    data = io.BytesIO()
    text = io.TextIOWrapper(data, encoding=out.encoding or "utf-8", errors="backslashreplace")
    # A pipe has no width, and a wrapped line cannot be searched.
    width = Console(file=out).width if out.isatty() else 10_000
    console = Console(file=text, highlight=False, width=width, force_terminal=out.isatty())
    console.print(_Drawing(guest, topology, long).tree())
    text.flush()
    return data.getvalue()


def draw_svg(guest: Guest, topology: HostTopology, long: bool = False) -> str:
    """Return a guest as a picture, an SVG document that needs nothing from the network.

    Args:
        guest: The guest.
        topology: What the host's sysfs has about its passed-through devices.
        long: Whether to add models, what backs devices on the host, and DRC indexes.
    """
    console = Console(file=io.StringIO(), record=True, highlight=False, width=_SVG_WIDTH)
    console.print(_Drawing(guest, topology, long).tree())
    # rich refers to fonts on the network; the reader's own monospace font does as well.
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=guest.name), flags=re.DOTALL)


class _Drawing:
    """The tree of one guest."""

    def __init__(self, guest: Guest, topology: HostTopology, long: bool) -> None:
        self._guest = guest
        self._topology = topology
        self._long = long
        self._groups = group_devices(guest, topology)
        self._buses = {phb.index for phb in guest.phbs} | {bridge.index for bridge in guest.bridges}

    def tree(self) -> Tree:
        """Return the tree."""
        guest = self._guest
        root = Tree(f"[bold]{escape(guest.name)}[/]  {_summary(guest)}")
        for phb in sorted(guest.phbs, key=lambda phb: phb.index):
            self._add_bus(root.add(self._phb(phb)), phb.index, phb.target, {phb.index})
        reached = {phb.index for phb in guest.phbs}
        for bridge in guest.bridges:
            if bridge.address is None or bridge.address.bus not in self._buses:
                self._add_bus(root.add(_bridge(bridge)), bridge.index, None, reached)
        unplaced = [g for g in self._groups if all(guest.devices[member].address is None for member in g.members)]
        if unplaced:
            branch = root.add("[yellow]no address; libvirt chooses one[/]")
            for group in unplaced:
                self._add_group(branch, group, group.members, None)
        self._add_undefined_buses(root)
        return root

    def _phb(self, phb: Phb) -> str:
        guest = self._guest
        domain = f"PCI domain {phb.target:04x}" if phb.target is not None else "no target index"
        index = f"  DRC index {drc_index(phb.target)}" if self._long and phb.target is not None else ""
        cell = f", NUMA cell {phb.node}" if phb.node is not None else ""
        in_use = any(d.address is not None and d.address.bus == phb.index for d in guest.devices)
        in_use |= any(b.address is not None and b.address.bus == phb.index for b in guest.bridges)
        if phb.index in guest.used_by_commandline:
            state = "  [yellow]used by qemu:commandline[/]"
        else:
            state = "" if in_use else "  [green]spare[/]" if phb.node is None else "  empty"
        return f"[bold]vPHB {phb.index}[/]  {domain}{index}{cell}{state}"

    def _add_bus(self, branch: Tree, bus: int, domain: int | None, seen: set[int]) -> None:
        """Add the devices on a bus, and on the buses behind it, to a branch."""
        for group in self._groups:
            addresses = ((member, self._guest.devices[member].address) for member in group.members)
            members = [member for member, address in addresses if address is not None and address.bus == bus]
            if members:
                self._add_group(branch, group, members, domain)
        for bridge in self._guest.bridges:
            plugged = bridge.address is not None and bridge.address.bus == bus
            if plugged and bridge.index not in seen:
                self._add_bus(branch.add(_bridge(bridge)), bridge.index, None, seen | {bridge.index})

    def _add_group(self, branch: Tree, group: DeviceGroup, members: Iterable[int], domain: int | None) -> None:
        if group.iommu_group is not None:
            branch = branch.add(f"[cyan]endpoint[/]  IOMMU group {group.iommu_group}")
        for member in members:
            device = self._guest.devices[member]
            branch.add(_device(device, domain) + self._details(device))

    def _add_undefined_buses(self, root: Tree) -> None:
        """Add the devices whose bus no controller provides."""
        addresses = ((device, device.address) for device in self._guest.devices)
        devices = [(device, at) for device, at in addresses if at is not None and at.bus not in self._buses]
        if devices:
            branch = root.add("[red]on a bus that the domain XML does not define[/]")
            for device, address in devices:
                branch.add(f"{address}  {escape(device.name)}")

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
        return f"  [dim]{escape(', '.join(facts))}[/]" if facts else ""


def _summary(guest: Guest) -> str:
    empty = empty_vphbs(guest) - {bridge.address.bus for bridge in guest.bridges if bridge.address is not None}
    bridges = f", {_count(len(guest.bridges), 'bridge')}" if guest.bridges else ""
    return f"{_count(len(guest.phbs), 'vPHB')}, {len(empty)} spare{bridges}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _bridge(bridge: Bridge) -> str:
    return f"[red]bus {bridge.index}[/]  {bridge.model}"


def _device(device: Device, domain: int | None) -> str:
    at = device.address
    if at is None:
        return escape(device.name)
    place = f"{at.slot:02x}.{at.function:x}"
    where = f"{domain:04x}:00:{place}" if domain is not None else f"slot {place}"
    return f"{where}  {escape(device.name)}"
