"""A guest's layout as a tree: each vPHB and the devices on it, with their addresses in the guest."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from ..layout.capacity import empty_vphbs
from ..layout.groups import DeviceGroup, group_devices
from ..model import Bridge, Device, Guest, HostTopology, Phb


def draw(guest: Guest, topology: HostTopology, out: TextIO) -> bytes:
    """Return a guest as a tree, as its domain XML has it.

    A PCI domain is the target index of its vPHB (QEMU hw/ppc/spapr_pci.c, Linux
    arch/powerpc/kernel/pci-common.c).

    Args:
        guest: The guest.
        topology: What the host's sysfs has about its passed-through devices.
        out: Where the tree will be printed. On a terminal it has colours and wraps at the terminal's width.
    """
    data = io.BytesIO()
    text = io.TextIOWrapper(data, encoding=out.encoding or "utf-8", errors="backslashreplace")
    # A pipe has no width, and a wrapped line cannot be searched.
    width = Console(file=out).width if out.isatty() else 10_000
    Console(file=text, highlight=False, width=width, force_terminal=out.isatty()).print(tree(guest, topology))
    text.flush()
    return data.getvalue()


def tree(guest: Guest, topology: HostTopology) -> Tree:
    """Return the tree of a guest's vPHBs."""
    groups = group_devices(guest, topology)
    root = Tree(f"[bold]{escape(guest.name)}[/]  {_summary(guest)}")
    for phb in sorted(guest.phbs, key=lambda phb: phb.index):
        _bus(root.add(_phb(phb, guest)), phb.index, phb.target, guest, topology, groups, {phb.index})
    reached = {phb.index for phb in guest.phbs}
    unplugged = [b for b in guest.bridges if b.address is None or b.address.bus not in _buses(guest)]
    for bridge in unplugged:
        _bus(root.add(_bridge(bridge)), bridge.index, None, guest, topology, groups, reached)
    unplaced = [g for g in groups if all(guest.devices[member].address is None for member in g.members)]
    if unplaced:
        branch = root.add("[yellow]no address; libvirt chooses one[/]")
        for group in unplaced:
            _group(branch, group, group.members, None, guest, topology)
    _undefined_buses(root, guest)
    return root


def _summary(guest: Guest) -> str:
    empty = empty_vphbs(guest) - {bridge.address.bus for bridge in guest.bridges if bridge.address is not None}
    bridges = f", {_count(len(guest.bridges), 'bridge')}" if guest.bridges else ""
    return f"{_count(len(guest.phbs), 'vPHB')}, {len(empty)} spare{bridges}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _phb(phb: Phb, guest: Guest) -> str:
    domain = f"PCI domain {phb.target:04x}" if phb.target is not None else "no target index"
    cell = f", NUMA cell {phb.node}" if phb.node is not None else ""
    on_bus = any(d.address is not None and d.address.bus == phb.index for d in guest.devices)
    on_bus |= any(b.address is not None and b.address.bus == phb.index for b in guest.bridges)
    if phb.index in guest.used_by_commandline:
        state = "  [yellow]used by qemu:commandline[/]"
    else:
        state = "" if on_bus else "  [green]spare[/]" if phb.node is None else "  empty"
    return f"[bold]vPHB {phb.index}[/]  {domain}{cell}{state}"


def _bridge(bridge: Bridge) -> str:
    return f"[red]bus {bridge.index}[/]  {bridge.model}"


def _bus(
    branch: Tree,
    bus: int,
    domain: int | None,
    guest: Guest,
    topology: HostTopology,
    groups: Iterable[DeviceGroup],
    seen: set[int],
) -> None:
    """Add the devices on a bus, and on the buses behind it, to a branch."""
    for group in groups:
        members = [
            member
            for member in group.members
            if (address := guest.devices[member].address) is not None and address.bus == bus
        ]
        if members:
            _group(branch, group, members, domain, guest, topology)
    for bridge in guest.bridges:
        plugged = bridge.address is not None and bridge.address.bus == bus
        if plugged and bridge.index not in seen:
            subtree = branch.add(_bridge(bridge))
            _bus(subtree, bridge.index, None, guest, topology, groups, seen | {bridge.index})


def _group(
    branch: Tree, group: DeviceGroup, members: Iterable[int], domain: int | None, guest: Guest, topology: HostTopology
) -> None:
    if group.iommu_group is not None:
        branch = branch.add(f"[cyan]endpoint[/]  IOMMU group {group.iommu_group}")
    for member in members:
        device = guest.devices[member]
        branch.add(_device(device, domain) + _host_side(device, topology))


def _device(device: Device, domain: int | None) -> str:
    at = device.address
    if at is None:
        return escape(device.name)
    place = f"{at.slot:02x}.{at.function:x}"
    where = f"{domain:04x}:00:{place}" if domain is not None else f"slot {place}"
    return f"{where}  {escape(device.name)}"


def _host_side(device: Device, topology: HostTopology) -> str:
    """Return what the host's sysfs has about a passed-through device, or nothing."""
    host = topology.devices.get(device.source) if device.source is not None else None
    if host is None:
        return ""
    facts = [f"driver {host.driver}" if host.driver is not None else "no driver"]
    facts += [f"node {host.node}"] if host.node is not None else []
    facts += [f"function of {host.parent}"] if host.parent is not None else []
    return f"  [dim]{escape(', '.join(facts))}[/]"


def _undefined_buses(root: Tree, guest: Guest) -> None:
    """Add the devices whose bus no controller provides."""
    devices = [d for d in guest.devices if d.address is not None and d.address.bus not in _buses(guest)]
    if devices:
        branch = root.add("[red]on a bus that the domain XML does not define[/]")
        for device in devices:
            branch.add(f"{device.address}  {escape(device.name)}")


def _buses(guest: Guest) -> set[int]:
    return {phb.index for phb in guest.phbs} | {bridge.index for bridge in guest.bridges}
