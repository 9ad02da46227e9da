"""A guest's layout as a tree: each vPHB with what is on it, named as the guest names it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from ..layout.compute import empty_vphbs
from ..layout.groups import DeviceGroup, group_devices
from ..model import Bridge, Device, Guest, HostTopology, Phb


def show(guest: Guest, topology: HostTopology, out: TextIO) -> None:
    """Draw a guest as its definition has it, with colours where out is a terminal.

    A PCI domain is the target index of its vPHB (QEMU hw/ppc/spapr_pci.c, Linux
    arch/powerpc/kernel/pci-common.c).
    """
    # A pipe has no width to wrap at, and a wrapped line cannot be searched.
    width = None if out.isatty() else 10_000
    Console(file=out, highlight=False, width=width).print(tree(guest, topology))


def tree(guest: Guest, topology: HostTopology) -> Tree:
    """The tree that show draws."""
    groups = group_devices(guest, topology)
    root = Tree(f"[bold]{escape(guest.name)}[/]  {_summary(guest)}")
    for phb in sorted(guest.phbs, key=lambda phb: phb.index):
        _bus(root.add(_phb(phb, guest)), phb.index, phb.target, guest, topology, groups, {phb.index})
    reached = {phb.index for phb in guest.phbs}
    loose = [b for b in guest.bridges if b.address is None or b.address.bus not in _buses(guest)]
    for bridge in loose:
        _bus(root.add(_bridge(bridge)), bridge.index, None, guest, topology, groups, reached)
    unplaced = [u for u in groups if all(guest.devices[m].address is None for m in u.members)]
    if unplaced:
        branch = root.add("[yellow]without an address, so libvirt would choose one[/]")
        for group in unplaced:
            _unit(branch, group, group.members, None, guest, topology)
    _strays(root, guest)
    return root


def _summary(guest: Guest) -> str:
    empty = empty_vphbs(guest) - {bridge.address.bus for bridge in guest.bridges if bridge.address is not None}
    bridges = f", {_count(len(guest.bridges), 'bridge')}" if guest.bridges else ""
    return f"{_count(len(guest.phbs), 'vPHB')}, {len(empty)} spare{bridges}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _phb(phb: Phb, guest: Guest) -> str:
    domain = f"PCI domain {phb.target:04x}" if phb.target is not None else "no target index"
    cell = f", NUMA cell {phb.node}" if phb.node is not None else ""
    on_bus = any(d.address is not None and d.address.bus == phb.index for d in guest.devices)
    on_bus |= any(b.address is not None and b.address.bus == phb.index for b in guest.bridges)
    if phb.index in guest.used_by_commandline:
        state = "  [yellow]a device of the qemu:commandline[/]"
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
    """What is on one bus, and on the buses behind it."""
    for group in groups:
        members = [
            member
            for member in group.members
            if (address := guest.devices[member].address) is not None and address.bus == bus
        ]
        if members:
            _unit(branch, group, members, domain, guest, topology)
    for bridge in guest.bridges:
        plugged = bridge.address is not None and bridge.address.bus == bus
        if plugged and bridge.index not in seen:
            there = branch.add(_bridge(bridge))
            _bus(there, bridge.index, None, guest, topology, groups, seen | {bridge.index})


def _unit(
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
    """What the host says of a device that is passed through."""
    found = topology.devices.get(device.source) if device.source is not None else None
    if found is None:
        return ""
    said = [f"driver {found.driver}" if found.driver is not None else "no driver"]
    said += [f"node {found.node}"] if found.node is not None else []
    said += [f"function of {found.parent}"] if found.parent is not None else []
    return f"  [dim]{escape(', '.join(said))}[/]"


def _strays(root: Tree, guest: Guest) -> None:
    """Devices at a bus that no controller has."""
    strays = [d for d in guest.devices if d.address is not None and d.address.bus not in _buses(guest)]
    if strays:
        branch = root.add("[red]on a bus that the definition does not have[/]")
        for device in strays:
            branch.add(f"{device.address}  {escape(device.name)}")


def _buses(guest: Guest) -> set[int]:
    return {phb.index for phb in guest.phbs} | {bridge.index for bridge in guest.bridges}
