"""Check a guest against the layout rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..config import IncompletePe
from ..diagnostics import Diagnostic, Name, Rule, Severity, error, warning
from ..model import MAX_PHBS, MAX_SLOT, Device, Guest, HostTopology, PciAddress, Phb
from . import endpoints
from .capacity import Capacity, commandline_clashes, empty_vphbs
from .current import CurrentLayout
from .groups import DeviceGroup
from .keep import balanced_buses, find_kept


def check(
    guest: Guest, spares: int, topology: HostTopology, incomplete_pe: IncompletePe = IncompletePe.WARN
) -> tuple[Diagnostic, ...]:
    """Return what breaks the layout rules, in the order of the domain XML.

    Args:
        guest: The guest as its domain XML describes it.
        spares: The empty vPHBs that it should have, 0 to 30.
        topology: What is known about its host.
        incomplete_pe: What the host's settings say about endpoints that are passed through in part.
    """
    current = CurrentLayout(guest, topology)
    capacity = find_kept(current, spares).capacity
    found = (
        *_controllers(current),
        *_ceiling(guest, capacity),
        *(broken for device in guest.devices for broken in _placement(device, current)),
        *_isolation(current, capacity),
        *_endpoints(guest, topology, incomplete_pe),
        *_missing_function_0(current),
        *_spares(guest, spares, capacity),
    )
    return tuple(sorted(found, key=_reading_order))


def _reading_order(diagnostic: Diagnostic) -> tuple[bool, int]:
    """Sort key: by line, and findings without a line last, by rule."""
    if diagnostic.line is not None:
        return False, diagnostic.line
    return True, list(Rule).index(diagnostic.rule) if diagnostic.rule is not None else len(Rule)


def complies(diagnostics: Iterable[Diagnostic]) -> bool:
    """Return whether no finding is an error."""
    return not any(diagnostic.is_error for diagnostic in diagnostics)


def phb_name(phb: Phb) -> str:
    """Return what a message calls a vPHB."""
    return f"<controller> pci {phb.index}"


def _controllers(current: CurrentLayout) -> Iterator[Diagnostic]:
    guest = current.guest
    for bridge in guest.bridges:
        text = f"is a {bridge.model}; a pseries guest has pci-root controllers only"
        yield error(Name.PCI_ROOT_ONLY, text, f"<controller> pci {bridge.index}", bridge.line)
    missing = sorted(set(range(current.highest_bus + 1)) - current.roots)
    if missing:
        names = ", ".join(map(str, missing))
        yield error(Name.PCI_ROOT_MISSING, f"has no pci-root with index {names}", "<devices>")
    yield from commandline_clashes(guest, guest.phbs)
    targets = Counter(phb.target for phb in guest.phbs)
    for phb in guest.phbs:
        fault = _target_fault(phb, targets, guest)
        if fault is not None:
            yield error(Name.TARGET_INDEX, fault, phb_name(phb), phb.line)


def _target_fault(phb: Phb, targets: Mapping[int | None, int], guest: Guest) -> str | None:
    if phb.target is None:
        return "has no target index"
    if not 0 <= phb.target < MAX_PHBS:
        return f"has target index {phb.target}; use 0 to {MAX_PHBS - 1}"
    if targets[phb.target] > 1 or phb.target in guest.commandline_targets:
        return f"has target index {phb.target}, which is used twice"
    if (phb.index == 0) != (phb.target == 0):
        return f"has target index {phb.target}; target index 0 belongs to index 0"
    return None


def _ceiling(guest: Guest, capacity: Capacity) -> Iterator[Diagnostic]:
    if capacity.shortage is not None:
        yield capacity.shortage
    if len(guest.phbs) > capacity.ceiling or any(phb.index >= MAX_PHBS for phb in guest.phbs):
        highest = max(phb.index for phb in guest.phbs)
        text = (
            f"has {len(guest.phbs)} pci-roots, the last with index {highest}; "
            f"this guest can have {capacity.ceiling}, from index 0"
        )
        yield error(Name.TOO_MANY_PHBS, text, "<devices>", guest.phbs[-1].line)


def _placement(device: Device, current: CurrentLayout) -> Iterator[Diagnostic]:
    """Yield the address rule's findings about one device."""
    fault = _address_fault(device.address, current)
    if fault is not None:
        yield error(fault[0], fault[1], device.name, device.line)


def _address_fault(address: PciAddress | None, current: CurrentLayout) -> tuple[Name, str] | None:
    if address is None:
        return Name.NO_ADDRESS, "has no PCI address, so libvirt would choose one"
    if current.is_usable(address):
        return None
    if address.domain != 0:
        return Name.BAD_ADDRESS, f"is at {address}; the buses of a guest are in PCI domain 0"
    bridge = next((bridge for bridge in current.guest.bridges if bridge.index == address.bus), None)
    if bridge is not None:
        return Name.BEHIND_BRIDGE, f"is at {address}, behind a {bridge.model}"
    if 1 <= address.slot <= MAX_SLOT:
        return Name.BAD_ADDRESS, f"is at {address}, and there can be no vPHB {address.bus}"
    return Name.BAD_ADDRESS, f"is at {address}; the slots of a vPHB are 1 to {MAX_SLOT}"


def _isolation(current: CurrentLayout, capacity: Capacity) -> Iterator[Diagnostic]:
    """Yield groups that are not alone on their vPHB, and groups that are not together."""
    for group in current.groups:
        yield from _scattered_group(current, group)
    may_share = balanced_buses(current, capacity)
    bridges = {bridge.address.bus: bridge for bridge in reversed(current.guest.bridges) if bridge.address is not None}
    for bus, groups in sorted(current.on_bus.items()):
        if bus in current.guest.used_by_commandline:
            yield from _on_commandline_bus(current, bus, groups)
        elif len(groups) > 1 and bus not in may_share:
            yield from _shared_bus(current, bus, capacity)
        elif bus in bridges:
            first = _first_on(current, groups[0], bus)
            text = f"shares vPHB {bus} with a {bridges[bus].model} (line {bridges[bus].line})"
            yield error(Name.NOT_ISOLATED, text, first.name, first.line)


def _on_commandline_bus(current: CurrentLayout, bus: int, groups: Iterable[DeviceGroup]) -> Iterator[Diagnostic]:
    """Yield the groups on a vPHB that the qemu:commandline uses; the first emulated NIC may stay on vPHB 0."""
    for group in groups:
        first = _first_on(current, group, bus)
        slots = {address.slot for address in current.addresses(group)}
        may_stay = bus == 0 and group is current.nic_on_bus_0 and not slots & current.guest.commandline_slots
        text = f"is on vPHB {bus}, which the qemu:commandline uses"
        severity = Severity.WARNING if may_stay else Severity.ERROR
        yield Diagnostic(Name.COMMANDLINE_BUS, severity, text, first.name, first.line)


def _scattered_group(current: CurrentLayout, group: DeviceGroup) -> Iterator[Diagnostic]:
    """Yield a group that is in several places at once."""
    devices, addresses = current.members(group), current.addresses(group)
    names = ", ".join(device.name for device in devices)
    buses = sorted({address.bus for address in addresses})
    if group.endpoint and len(buses) > 1:
        text = f"are one endpoint, IOMMU group {group.iommu_group}, but on vPHBs {', '.join(map(str, buses))}"
        yield error(Name.SPLIT_ENDPOINT, text, names, devices[0].line)
    if not group.endpoint and len({(address.bus, address.slot) for address in addresses}) > 1:
        yield error(Name.SPLIT_SLOT, "are functions of one device, but not in one slot", names, devices[0].line)


def _endpoints(guest: Guest, topology: HostTopology, incomplete_pe: IncompletePe) -> Iterator[Diagnostic]:
    """Yield endpoints that are passed through in part, and host devices that this host does not have."""
    for missing in endpoints.missing_members(guest, topology):
        breaks = incomplete_pe is IncompletePe.REFUSE or (
            incomplete_pe is IncompletePe.ADD and bool(endpoints.can_be_added(missing))
        )
        yield missing.diagnostic(Severity.ERROR if breaks else Severity.WARNING)
    yield from endpoints.unresolved_hostdevs(guest, topology)


def _missing_function_0(current: CurrentLayout) -> Iterator[Diagnostic]:
    """Yield slots without a function 0: QEMU allows them, but some guests do not probe such slots."""
    for group in current.groups:
        slots: dict[tuple[int, int], list[tuple[int, Device]]] = {}
        for device in current.members(group):
            if device.address is not None and device.usb2_group is None:
                at = device.address
                slots.setdefault((at.bus, at.slot), []).append((at.function, device))
        for functions in slots.values():
            lowest = min(function for function, _ in functions)
            if lowest > 0:
                first = functions[0][1]
                text = f"is function {lowest} of a slot that has no function 0"
                yield warning(Name.NO_FUNCTION_0, text, first.name, first.line)


def _shared_bus(current: CurrentLayout, bus: int, capacity: Capacity) -> Iterator[Diagnostic]:
    """Yield the groups that share a vPHB although they need not, or less evenly than they could."""
    groups = current.on_bus[bus]
    firsts = [_first_on(current, group, bus) for group in groups]
    uneven = not capacity.fits_exclusively and not any(group.endpoint for group in groups)
    for first in firsts:
        other = firsts[1] if first is firsts[0] else firsts[0]
        more = f" and {len(groups) - 2} more" if len(groups) > 2 else ""
        line = f" (line {other.line})" if other.line is not None else ""
        text = f"shares vPHB {bus} with {other.name}{line}{more}"
        if uneven:
            yield error(Name.UNEVEN_SHARING, f"{text}; other vPHBs are less loaded", first.name, first.line)
        else:
            yield error(Name.NOT_ISOLATED, text, first.name, first.line)


def _spares(guest: Guest, spares: int, capacity: Capacity) -> Iterator[Diagnostic]:
    empty = empty_vphbs(guest)
    possible = min(spares, max(capacity.usable - capacity.needed, 0))
    if len(empty) < possible:
        yield warning(Name.TOO_FEW_SPARES, f"has {len(empty)} of {possible} spare vPHBs", "<devices>")


def _first_on(current: CurrentLayout, group: DeviceGroup, bus: int) -> Device:
    return next(device for device in current.members(group) if device.address is not None and device.address.bus == bus)
