"""Whether a guest keeps the contract, and if not, where it breaks which rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..model import MAX_PHBS, MAX_SLOT, Device, Guest, HostTopology, PciAddress, Phb
from . import endpoints
from .compute import Room, empty_vphbs, homes_of, measure, usable_address
from .groups import DeviceGroup, group_devices


@dataclass(frozen=True)
class Violation:
    """One place where a definition does not keep the contract.

    rule: 1-5, as the manual page numbers them; line: in the definition, None for what libvirt
    would add; element: what breaks the rule; text: how. A warning never refuses a start.
    """

    rule: int
    line: int | None
    element: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        label = "warning: " if self.warning else ""
        return f"{where}{label}rule {self.rule}: {self.element}: {self.text}"


def check(guest: Guest, spares: int, topology: HostTopology, incomplete_pe: str = "warn") -> tuple[Violation, ...]:
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
        *_headless(guest, groups),
        *_spares(guest, spares, room),
    )
    return tuple(sorted(found, key=_reading_order))


def _reading_order(violation: Violation) -> tuple[bool, int]:
    """As a person goes through the definition; what is not in it comes last."""
    return violation.line is None, violation.line or violation.rule


def complies(violations: tuple[Violation, ...]) -> bool:
    """Whether no violation is more than a warning."""
    return all(violation.warning for violation in violations)


def phb_name(phb: Phb) -> str:
    """How a message names a vPHB."""
    return f"<controller> pci {phb.index}"


def _controllers(guest: Guest) -> Iterator[Violation]:
    for bridge in guest.bridges:
        yield Violation(
            1,
            bridge.line,
            f"<controller> pci {bridge.index}",
            f"is a {bridge.model}; a pseries guest has pci-root controllers only",
        )
    indexes = {phb.index for phb in guest.phbs if phb.index < MAX_PHBS}
    missing = sorted(set(range(max(indexes, default=0) + 1)) - indexes)
    if missing:
        names = ", ".join(map(str, missing))
        yield Violation(1, None, "<devices>", f"there is no pci-root with index {names}")
    targets = Counter(phb.target for phb in guest.phbs)
    for phb in guest.phbs:
        text = _target_fault(phb, targets, guest)
        if text is not None:
            yield Violation(1, phb.line, phb_name(phb), text)


def _target_fault(phb: Phb, targets: Mapping[int | None, int], guest: Guest) -> str | None:
    if phb.target is None:
        return "has no target index"
    if not 0 <= phb.target < MAX_PHBS:
        return f"has target index {phb.target}; 0 to {MAX_PHBS - 1} can be used"
    if targets[phb.target] > 1 or phb.target in guest.taken_targets:
        return f"has target index {phb.target}, and so has another PHB"
    if (phb.index == 0) != (phb.target == 0):
        return f"has target index {phb.target}; 0 belongs to index 0, and only to it"
    return None


def _ceiling(guest: Guest, room: Room) -> Iterator[Violation]:
    if room.too_small is not None:
        yield Violation(5, None, "<devices>", room.too_small)
    if len(guest.phbs) > room.ceiling or any(phb.index >= MAX_PHBS for phb in guest.phbs):
        highest = max(phb.index for phb in guest.phbs)
        yield Violation(
            5,
            guest.phbs[-1].line,
            "<devices>",
            f"has {len(guest.phbs)} pci-roots, the last with index {highest}; "
            f"this guest can have {room.ceiling}, from index 0",
        )


def _placement(device: Device, guest: Guest) -> Iterator[Violation]:
    """Rule 2 for one device."""
    text = _address_fault(device.address, guest)
    if text is not None:
        yield Violation(2, device.line, device.name, text)


def _address_fault(address: PciAddress | None, guest: Guest) -> str | None:
    if address is None:
        return "has no PCI address, so libvirt would choose one"
    if usable_address(address, guest):
        return None
    if address.domain != 0:
        return f"is at {address}; every vPHB is PCI domain 0 to libvirt"
    bridge = next((bridge for bridge in guest.bridges if bridge.index == address.bus), None)
    if bridge is not None:
        return f"is at {address}, behind a {bridge.model}"
    if not any(phb.index == address.bus for phb in guest.phbs):
        return f"is at {address}, and there is no vPHB {address.bus}"
    return f"is at {address}; a vPHB takes devices in slots 1 to {MAX_SLOT}"


def _isolation(guest: Guest, groups: tuple[DeviceGroup, ...], room: Room) -> Iterator[Violation]:
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
                yield Violation(3, first.line, first.name, text)
        elif len(on_bus[bus]) > 1 and bus in roots and bus not in may_share:
            yield from _crowd(guest, bus, on_bus[bus], room)
        elif bus in bridged and bus in roots:
            first = _first_on(guest, on_bus[bus][0], bus)
            text = f"shares vPHB {bus} with a {bridged[bus].model} (line {bridged[bus].line})"
            yield Violation(3, first.line, first.name, text)


def _split(guest: Guest, group: DeviceGroup) -> Iterator[Violation]:
    """A unit that is in several places at once."""
    given = [guest.devices[member] for member in group.members]
    buses = sorted(_buses(guest, group))
    if group.endpoint and len(buses) > 1:
        names = ", ".join(device.name for device in given)
        text = f"are one endpoint, IOMMU group {group.iommu_group}, but on vPHBs {', '.join(map(str, buses))}"
        yield Violation(3, given[0].line, names, text)
    slots = {(d.address.bus, d.address.slot) for d in given if d.address is not None}
    if not group.endpoint and len(slots) > 1:
        names = ", ".join(device.name for device in given)
        yield Violation(3, given[0].line, names, "are functions of one device, but not in one slot")


def _endpoints(guest: Guest, topology: HostTopology, incomplete_pe: str) -> Iterator[Violation]:
    """Endpoints that are not whole, and host devices that are not here."""
    for missing in endpoints.missing_members(guest, topology):
        mendable = incomplete_pe == "refuse" or (incomplete_pe == "add" and bool(endpoints.can_be_added(missing)))
        yield Violation(3, missing.device.line, missing.device.name, str(missing), warning=not mendable)
    for device, text in endpoints.strangers(guest, topology):
        yield Violation(3, device.line, device.name, text, warning=True)


def _headless(guest: Guest, groups: tuple[DeviceGroup, ...]) -> Iterator[Violation]:
    """Slots whose function 0 is missing: QEMU has them, but not every guest looks there."""
    for group in groups:
        slots: dict[tuple[int, int], list[Device]] = {}
        for device in (guest.devices[member] for member in group.members):
            if device.address is not None and device.companions is None:
                slots.setdefault((device.address.bus, device.address.slot), []).append(device)
        for there in slots.values():
            lowest = min(device.address.function for device in there if device.address is not None)
            if lowest > 0:
                text = f"is function {lowest} of a slot that has no function 0"
                yield Violation(3, there[0].line, there[0].name, text, warning=True)


def _crowd(guest: Guest, bus: int, groups: list[DeviceGroup], room: Room) -> Iterator[Violation]:
    """Several units on one vPHB."""
    for group in groups:
        first = _first_on(guest, group, bus)
        others = [_first_on(guest, other, bus) for other in groups if other is not group]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        line = f" (line {others[0].line})" if others[0].line is not None else ""
        text = f"shares vPHB {bus} with {others[0].name}{line}{more}"
        if not room.fits and not any(other.endpoint for other in groups):
            yield Violation(5, first.line, first.name, f"{text}; others share less")
        else:
            yield Violation(3, first.line, first.name, text)


def _even_homes(guest: Guest, groups: tuple[DeviceGroup, ...], room: Room) -> Iterator[int]:
    """The vPHBs that emulated devices share as rule 5 allows."""
    if room.fits or room.too_small is not None:
        return
    emulated = {
        bus: len(there) for bus, there in homes_of(guest, groups).items() if not any(group.endpoint for group in there)
    }
    even = max(emulated.values(), default=0) - min(emulated.values(), default=0) <= 1
    whole = sum(emulated.values()) == room.emulated
    if even and whole and len(emulated) >= room.homes:
        yield from emulated


def _spares(guest: Guest, spares: int, room: Room) -> Iterator[Violation]:
    empty = empty_vphbs(guest)
    possible = min(spares, max(room.usable - room.endpoints - room.emulated, 0))
    if len(empty) < possible:
        yield Violation(
            4,
            None,
            "<devices>",
            f"{len(empty)} empty vPHBs of {possible} for hotplug",
            warning=True,
        )


def _buses(guest: Guest, group: DeviceGroup) -> set[int]:
    addresses = (guest.devices[member].address for member in group.members)
    return {address.bus for address in addresses if address is not None}


def _first_on(guest: Guest, group: DeviceGroup, bus: int) -> Device:
    on = (guest.devices[member] for member in group.members)
    return next(d for d in on if d.address is not None and d.address.bus == bus)
