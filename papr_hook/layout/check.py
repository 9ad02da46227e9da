"""Whether a guest keeps the contract, and if not, where it breaks which rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..diagnostics import Diagnostic, Name, Rule, Severity, error, warning
from ..model import MAX_PHBS, MAX_SLOT, Device, Guest, HostTopology, PciAddress, Phb
from . import endpoints
from .compute import Room, empty_vphbs, homes_of, measure, usable_address
from .groups import DeviceGroup, group_devices


def check(guest: Guest, spares: int, topology: HostTopology, incomplete_pe: str = "warn") -> tuple[Diagnostic, ...]:
    """Judge a guest.

    guest: as its definition has it; spares: the empty vPHBs that it should have, 0-30; facts:
    what the host said; incomplete_pe: the policy for endpoints passed through in part. An empty
    answer, or one of warnings only, means that it complies.
    """
    groups = group_devices(guest, topology)
    room = measure(guest, groups, spares)
    found = (
        *_controllers(guest),
        *_ceiling(guest, room),
        *(broken for device in guest.devices for broken in _placement(device, guest)),
        *_isolation(guest, groups, room),
        *_endpoints(guest, topology, incomplete_pe),
        *_missing_function_0(guest, groups),
        *_spares(guest, spares, room),
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
    """How a message names a vPHB."""
    return f"<controller> pci {phb.index}"


def _controllers(guest: Guest) -> Iterator[Diagnostic]:
    for bridge in guest.bridges:
        text = f"is a {bridge.model}; a pseries guest has pci-root controllers only"
        yield error(Name.PCI_ROOT_ONLY, text, f"<controller> pci {bridge.index}", bridge.line)
    indexes = {phb.index for phb in guest.phbs if phb.index < MAX_PHBS}
    missing = sorted(set(range(max(indexes, default=0) + 1)) - indexes)
    if missing:
        names = ", ".join(map(str, missing))
        yield error(Name.PCI_ROOT_MISSING, f"has no pci-root with index {names}", "<devices>")
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


def _ceiling(guest: Guest, room: Room) -> Iterator[Diagnostic]:
    if room.shortage is not None:
        yield room.shortage
    if len(guest.phbs) > room.ceiling or any(phb.index >= MAX_PHBS for phb in guest.phbs):
        highest = max(phb.index for phb in guest.phbs)
        text = (
            f"has {len(guest.phbs)} pci-roots, the last with index {highest}; "
            f"this guest can have {room.ceiling}, from index 0"
        )
        yield error(Name.TOO_MANY_PHBS, text, "<devices>", guest.phbs[-1].line)


def _placement(device: Device, guest: Guest) -> Iterator[Diagnostic]:
    """Yield the address rule's findings about one device."""
    fault = _address_fault(device.address, guest)
    if fault is not None:
        yield error(fault[0], fault[1], device.name, device.line)


def _address_fault(address: PciAddress | None, guest: Guest) -> tuple[Name, str] | None:
    if address is None:
        return Name.NO_ADDRESS, "has no PCI address, so libvirt would choose one"
    if usable_address(address, guest):
        return None
    if address.domain != 0:
        return Name.BAD_ADDRESS, f"is at {address}; the buses of a guest are in PCI domain 0"
    bridge = next((bridge for bridge in guest.bridges if bridge.index == address.bus), None)
    if bridge is not None:
        return Name.BEHIND_BRIDGE, f"is at {address}, behind a {bridge.model}"
    if not any(phb.index == address.bus for phb in guest.phbs):
        return Name.BAD_ADDRESS, f"is at {address}, and there is no vPHB {address.bus}"
    return Name.BAD_ADDRESS, f"is at {address}; the slots of a vPHB are 1 to {MAX_SLOT}"


def _isolation(guest: Guest, groups: tuple[DeviceGroup, ...], room: Room) -> Iterator[Diagnostic]:
    """Rule 3, and rule 5 where devices have to share."""
    on_bus: dict[int, list[DeviceGroup]] = {}
    for group in groups:
        yield from _split(guest, group)
        for bus in _buses(guest, group):
            on_bus.setdefault(bus, []).append(group)
    may_share = set(_even_homes(guest, groups, room))
    roots = {phb.index for phb in guest.phbs}
    bridged = {b.address.bus: b for b in reversed(guest.bridges) if b.address is not None}
    for bus in sorted(on_bus):
        if bus in guest.used_by_commandline and bus in roots:
            for group in on_bus[bus]:
                first = _first_on(guest, group, bus)
                text = f"is on vPHB {bus}, which the qemu:commandline uses"
                yield error(Name.COMMANDLINE_BUS, text, first.name, first.line)
        elif len(on_bus[bus]) > 1 and bus in roots and bus not in may_share:
            yield from _crowd(guest, bus, on_bus[bus], room)
        elif bus in bridged and bus in roots:
            first = _first_on(guest, on_bus[bus][0], bus)
            text = f"shares vPHB {bus} with a {bridged[bus].model} (line {bridged[bus].line})"
            yield error(Name.NOT_ISOLATED, text, first.name, first.line)


def _split(guest: Guest, group: DeviceGroup) -> Iterator[Diagnostic]:
    """A unit that is in several places at once."""
    given = [guest.devices[member] for member in group.members]
    buses = sorted(_buses(guest, group))
    if group.endpoint and len(buses) > 1:
        names = ", ".join(device.name for device in given)
        text = f"are one endpoint, IOMMU group {group.iommu_group}, but on vPHBs {', '.join(map(str, buses))}"
        yield error(Name.SPLIT_ENDPOINT, text, names, given[0].line)
    slots = {(d.address.bus, d.address.slot) for d in given if d.address is not None}
    if not group.endpoint and len(slots) > 1:
        names = ", ".join(device.name for device in given)
        yield error(Name.SPLIT_SLOT, "are functions of one device, but not in one slot", names, given[0].line)


def _endpoints(guest: Guest, topology: HostTopology, incomplete_pe: str) -> Iterator[Diagnostic]:
    """Yield endpoints that are passed through in part, and host devices that this host does not have."""
    for missing in endpoints.missing_members(guest, topology):
        breaks = incomplete_pe == "refuse" or (incomplete_pe == "add" and bool(endpoints.can_be_added(missing)))
        yield missing.diagnostic(Severity.ERROR if breaks else Severity.WARNING)
    yield from endpoints.unresolved_hostdevs(guest, topology)


def _missing_function_0(guest: Guest, groups: tuple[DeviceGroup, ...]) -> Iterator[Diagnostic]:
    """Slots whose function 0 is missing: QEMU has them, but not every guest looks there."""
    for group in groups:
        slots: dict[tuple[int, int], list[Device]] = {}
        for device in (guest.devices[member] for member in group.members):
            if device.address is not None and device.usb2_group is None:
                slots.setdefault((device.address.bus, device.address.slot), []).append(device)
        for there in slots.values():
            lowest = min(device.address.function for device in there if device.address is not None)
            if lowest > 0:
                text = f"is function {lowest} of a slot that has no function 0"
                yield warning(Name.NO_FUNCTION_0, text, there[0].name, there[0].line)


def _crowd(guest: Guest, bus: int, groups: list[DeviceGroup], room: Room) -> Iterator[Diagnostic]:
    """Several units on one vPHB."""
    for group in groups:
        first = _first_on(guest, group, bus)
        others = [_first_on(guest, other, bus) for other in groups if other is not group]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        line = f" (line {others[0].line})" if others[0].line is not None else ""
        text = f"shares vPHB {bus} with {others[0].name}{line}{more}"
        if not room.fits and not any(other.endpoint for other in groups):
            yield error(Name.UNEVEN_SHARING, f"{text}; other vPHBs are less loaded", first.name, first.line)
        else:
            yield error(Name.NOT_ISOLATED, text, first.name, first.line)


def _even_homes(guest: Guest, groups: tuple[DeviceGroup, ...], room: Room) -> Iterator[int]:
    """The vPHBs that emulated devices share as rule 5 allows."""
    if room.fits or room.shortage is not None:
        return
    emulated = {
        bus: len(there) for bus, there in homes_of(guest, groups).items() if not any(group.endpoint for group in there)
    }
    even = max(emulated.values(), default=0) - min(emulated.values(), default=0) <= 1
    whole = sum(emulated.values()) == room.emulated
    if even and whole and len(emulated) >= room.homes:
        yield from emulated


def _spares(guest: Guest, spares: int, room: Room) -> Iterator[Diagnostic]:
    empty = empty_vphbs(guest)
    possible = min(spares, max(room.usable - room.endpoints - room.emulated, 0))
    if len(empty) < possible:
        yield warning(Name.TOO_FEW_SPARES, f"has {len(empty)} of {possible} spare vPHBs", "<devices>")


def _buses(guest: Guest, group: DeviceGroup) -> set[int]:
    addresses = (guest.devices[member].address for member in group.members)
    return {address.bus for address in addresses if address is not None}


def _first_on(guest: Guest, group: DeviceGroup, bus: int) -> Device:
    on = (guest.devices[member] for member in group.members)
    return next(d for d in on if d.address is not None and d.address.bus == bus)
