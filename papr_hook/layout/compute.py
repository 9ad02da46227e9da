"""The layout: every device and every endpoint on a vPHB of its own.

Pure: a guest, the number of spares and what the host said go in, a Layout comes out. The rule
numbers are those of the contract in the manual page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..diagnostics import Diagnostic, Name, error, warning
from ..errors import LayoutError
from ..model import MAX_PHBS, MAX_SLOT, Guest, HostTopology, Layout, PciAddress, Phb
from .endpoints import cell_of
from .groups import DeviceGroup, group_devices

_FUNCTIONS = 8
"""Functions that a slot has."""


@dataclass(frozen=True)
class Room:
    """How a guest's units fit onto its vPHBs.

    ceiling: vPHBs that the definition may have.
    reserved: buses that no device may be put on.
    endpoints, emulated: units of each kind.
    floor: spares that stay before devices share, 0 or 1.
    tail: 1 where the last vPHB, whichever it is, must hold nothing; else 0.
    """

    ceiling: int
    reserved: frozenset[int]
    tail: int
    endpoints: int
    emulated: int
    floor: int

    @property
    def usable(self) -> int:
        """The vPHBs that may hold a unit or be a spare."""
        return self.ceiling - len(self.reserved) - self.tail

    @property
    def fits(self) -> bool:
        """Whether each unit can have a vPHB of its own."""
        return self.endpoints + self.emulated + self.floor <= self.usable

    @property
    def homes(self) -> int:
        """The vPHBs that emulated devices share where not each can have its own."""
        left = self.usable - self.endpoints
        return max(left - self.floor, 0) or left

    @property
    def shortage(self) -> Diagnostic | None:
        """Why the groups do not fit onto 31 vPHBs, or None if they do."""
        if self.homes < bool(self.emulated):
            needed = self.endpoints + bool(self.emulated) + self.ceiling - self.usable
            others = " and the emulated devices" if self.emulated else ""
            text = (
                f"{self.endpoints} host endpoints{others} need {needed} vPHBs, and this guest can "
                f"have {self.ceiling}; pass through fewer host devices"
            )
            return error(Name.TOO_MANY_ENDPOINTS, text)
        if self.emulated > self.homes * MAX_SLOT:
            text = f"{self.emulated} emulated devices do not fit on the {self.homes} vPHBs left for them"
            return error(Name.TOO_MANY_DEVICES, text)
        return None


def measure(guest: Guest, groups: Iterable[DeviceGroup], spares: int) -> Room:
    """How much room a guest has, and how much of it its units need.

    spares: the empty vPHBs that the policy asks for.
    """
    endpoints = [group.endpoint for group in groups]
    return Room(
        ceiling=MAX_PHBS - len(guest.commandline_targets),
        reserved=reserved_buses(guest),
        tail=int(guest.commandline_uses_last_bus),
        endpoints=sum(endpoints),
        emulated=len(endpoints) - sum(endpoints),
        floor=min(spares, 1),
    )


def reserved_buses(guest: Guest) -> frozenset[int]:
    """Buses that the commandline uses, and empty vPHBs that a person bound to a NUMA node."""
    used = {device.address.bus for device in guest.devices if device.address is not None}
    bound = {phb.index for phb in guest.phbs if phb.node is not None and phb.index not in used and phb.index < MAX_PHBS}
    return frozenset(bound | guest.commandline_buses)


def empty_vphbs(guest: Guest) -> set[int]:
    """The vPHBs that hold no device, and that a device may be put on."""
    used = {device.address.bus for device in guest.devices if device.address is not None}
    return {phb.index for phb in guest.phbs} - used - reserved_buses(guest) - guest.used_by_commandline


def usable_address(address: PciAddress | None, guest: Guest) -> bool:
    """Whether an address is on a vPHB that the layout keeps, in a slot that takes a device."""
    return (
        address is not None
        and address.domain == 0
        and 1 <= address.slot <= MAX_SLOT
        and address.bus < MAX_PHBS
        and any(phb.index == address.bus for phb in guest.phbs)
    )


def homes_of(guest: Guest, groups: Iterable[DeviceGroup]) -> dict[int, list[DeviceGroup]]:
    """The units that sit wholly on one usable bus that nothing else disturbs, by bus.

    A unit some of whose devices have no address yet sits where the others are.
    """
    homes: dict[int, list[DeviceGroup]] = {}
    bridged = {bridge.address.bus for bridge in guest.bridges if bridge.address is not None}
    disturbed = bridged | reserved_buses(guest)
    for group in groups:
        addresses = [guest.devices[member].address for member in group.members]
        given = [address for address in addresses if address is not None]
        buses = {address.bus for address in given}
        slots = {(address.bus, address.slot) for address in given}
        if (
            given
            and all(usable_address(address, guest) for address in given)
            and len(buses if group.endpoint else slots) == 1
        ):
            homes.setdefault(given[0].bus, []).append(group)
        else:
            disturbed |= buses
    return {bus: there for bus, there in homes.items() if bus not in disturbed}


def layout(guest: Guest, spares: int, topology: HostTopology) -> Layout:
    """Lay a guest out.

    guest: the guest as its definition has it; spares: the empty vPHBs that it should have, 0-30;
    facts: what the host said. Raises LayoutError where rule 5 cannot be met.
    """
    groups = group_devices(guest, topology)
    room = measure(guest, groups, spares)
    if room.shortage is not None:
        raise LayoutError(room.shortage)
    if 0 in guest.commandline_targets:
        text = "the qemu:commandline adds a PHB with index 0, which every pseries guest has already"
        raise LayoutError(error(Name.COMMANDLINE_PHB, text))
    homes = homes_of(guest, groups)
    alone = {bus: there for bus, there in homes.items() if len(there) == 1}
    if room.fits or len(alone) == len(groups):
        plan = _separate(guest, groups, room, alone, spares)
    else:
        plan = _share(guest, groups, room, homes)
    if plan.count > room.ceiling:
        text = f"the controllers and the qemu:commandline have more than {MAX_PHBS} PHBs together"
        raise LayoutError(error(Name.TOO_MANY_PHBS, text))
    return Layout(
        phbs=_phbs(guest, plan, topology),
        addresses=_places(guest, plan),
        diagnostics=tuple(_diagnostics(guest, plan, spares)),
    )


@dataclass(frozen=True)
class _Plan:
    """Which units go to which bus, and which of those buses they had already.

    count: the vPHBs that there will be. nodes: NUMA cells that go along with a moved unit.
    """

    count: int
    groups: Mapping[int, tuple[DeviceGroup, ...]]
    kept: frozenset[DeviceGroup]
    room: Room
    nodes: Mapping[int, int]


def _separate(
    guest: Guest, groups: tuple[DeviceGroup, ...], room: Room, alone: Mapping[int, list[DeviceGroup]], spares: int
) -> _Plan:
    """A vPHB for each unit; those that have one keep it."""
    kept = {there[0] for there in alone.values()}
    movers = [group for group in groups if group not in kept]
    count = _count(guest, room, set(alone), len(groups) + spares)
    free = _free(count - room.tail, set(alone) | room.reserved)
    node_of = {phb.index: phb.node for phb in guest.phbs if phb.node is not None}
    came_from = {group: _node(guest, group, node_of) for group in movers}
    takers = sorted(movers, key=lambda group: came_from[group] is None)
    plan = {bus: tuple(there) for bus, there in alone.items()}
    nodes: dict[int, int] = {}
    for group in takers:
        node = came_from[group]
        bus = next((bus for bus in free if node_of.get(bus) == node), free[0])
        free.remove(bus)
        plan[bus] = (group,)
        if node is not None and bus != 0:
            nodes[bus] = node
    return _Plan(count, plan, frozenset(kept), room, nodes)


def _share(guest: Guest, groups: tuple[DeviceGroup, ...], room: Room, homes: Mapping[int, list[DeviceGroup]]) -> _Plan:
    """A vPHB for each endpoint; the emulated devices spread evenly over the others."""
    endpoints = {bus: there[0] for bus, there in homes.items() if len(there) == 1 and there[0].endpoint}
    shared = {bus: there for bus, there in homes.items() if not any(group.endpoint for group in there)}
    spread = max(room.homes, min(len(shared), room.usable - room.endpoints))
    staying = _within_quota(shared, room.emulated, spread)
    taken = set(endpoints) | set(staying)
    count = _count(guest, room, taken, room.endpoints + spread + room.floor)
    free = _free(count - room.tail, taken | room.reserved)
    plan: dict[int, list[DeviceGroup]] = {bus: [group] for bus, group in endpoints.items()}
    for group in groups:
        if group.endpoint and group not in endpoints.values():
            plan[free.pop(0)] = [group]
    spots: dict[int, list[DeviceGroup]] = {bus: list(there) for bus, there in staying.items()}
    while len(spots) < spread:
        spots[free.pop(0)] = []
    kept = {group for there in staying.values() for group in there}
    for group in groups:
        if not group.endpoint and group not in kept:
            emptiest = min(spots, key=lambda bus: (len(spots[bus]), vphb_0_last(bus)))
            spots[emptiest].append(group)
    plan.update(spots)
    return _Plan(
        count,
        {bus: tuple(there) for bus, there in plan.items()},
        frozenset(kept | set(endpoints.values())),
        room,
        {},
    )


def _within_quota(shared: Mapping[int, list[DeviceGroup]], emulated: int, spread: int) -> dict[int, list[DeviceGroup]]:
    """The vPHBs whose devices may stay together when all are spread evenly."""
    quota, more = divmod(emulated, spread) if spread else (0, 0)
    staying: dict[int, list[DeviceGroup]] = {}
    for bus in sorted(shared, key=vphb_0_last):
        size = len(shared[bus])
        if len(staying) == spread or size > quota + bool(more):
            continue
        if size > quota:
            more -= 1
        staying[bus] = shared[bus]
    return staying


def vphb_0_last(bus: int) -> int:
    """A sort key that puts vPHB 0 last: libvirt puts there what nobody placed."""
    return bus or MAX_PHBS


def _free(count: int, taken: set[int]) -> list[int]:
    return sorted((bus for bus in range(count) if bus not in taken), key=vphb_0_last)


def _count(guest: Guest, room: Room, taken: set[int], wanted: int) -> int:
    """How many vPHBs there have to be: those that there are, and room for what is wanted.

    taken: buses that keep what they hold; wanted: vPHBs for units and spares.
    """
    roots = {phb.index for phb in guest.phbs if phb.index < MAX_PHBS}
    highest = max(roots | room.reserved, default=0)
    if highest in taken | room.reserved:
        highest += room.tail
    wanted += len(room.reserved) + room.tail
    return max(highest + 1, min(wanted, room.ceiling))


def _node(guest: Guest, group: DeviceGroup, node_of: Mapping[int, int]) -> int | None:
    """The NUMA cell that the vPHB of a unit was given; it goes where the unit goes."""
    given = (guest.devices[member].address for member in group.members)
    cells = (node_of.get(address.bus) for address in given if address is not None)
    return next((cell for cell in cells if cell is not None), None)


def _phbs(guest: Guest, plan: _Plan, topology: HostTopology) -> tuple[Phb, ...]:
    """The vPHBs that there will be, each with a target index of its own."""
    had: dict[int, Phb] = {}
    for phb in guest.phbs:
        had.setdefault(phb.index, phb)
    targets = {0: 0}
    taken = {0} | set(guest.commandline_targets)
    for index in range(1, plan.count):
        target = had[index].target if index in had else None
        if target is not None and 0 < target < MAX_PHBS and target not in taken:
            targets[index] = target
            taken.add(target)
    for index in range(1, plan.count):
        if index not in targets and index not in taken:
            targets[index] = index
            taken.add(index)
    unused = (target for target in range(1, MAX_PHBS) if target not in taken)
    for index in range(1, plan.count):
        if index not in targets:
            targets[index] = next(unused)
    phbs = (had.get(index, Phb(index)) for index in range(plan.count))
    return tuple(replace(phb, target=targets[phb.index], node=_cell(guest, plan, topology, phb)) for phb in phbs)


def _cell(guest: Guest, plan: _Plan, topology: HostTopology, phb: Phb) -> int | None:
    """The NUMA cell of a vPHB: the one that a person gave it or its unit, or that its endpoint is on.

    A cell that a moved unit took along is not left behind. vPHB 0 cannot have one (libvirt's
    virDomainControllerDefValidate).
    """
    groups = plan.groups.get(phb.index, ())
    given = plan.nodes.get(phb.index, phb.node if groups or phb.index in plan.room.reserved else None)
    if given is None and phb.index != 0 and len(groups) == 1:
        return cell_of(groups[0], guest, topology)
    return given


def _places(guest: Guest, plan: _Plan) -> tuple[PciAddress, ...]:
    places: dict[int, PciAddress] = {}
    for bus, groups in plan.groups.items():
        for group in groups:
            if group in plan.kept:
                places.update(_given(guest, group))
        for group in groups:
            taken = {place.slot for place in places.values() if place.bus == bus}
            places.update(_slots(guest, group, bus, taken, places))
    return tuple(places[position] for position in range(len(guest.devices)))


def _given(guest: Guest, group: DeviceGroup) -> dict[int, PciAddress]:
    devices = ((member, guest.devices[member].address) for member in group.members)
    return {member: address for member, address in devices if address is not None}


def _slots(
    guest: Guest, group: DeviceGroup, bus: int, taken: set[int], places: Mapping[int, PciAddress]
) -> dict[int, PciAddress]:
    """Addresses on a bus for the members of a unit that have none there yet."""
    found: dict[int, PciAddress] = {}
    placed = [places[member].slot for member in group.members if member in places]
    for card in _cards(guest, group, [m for m in group.members if m not in places]):
        free = (number for number in range(1, MAX_SLOT + 1) if number not in taken)
        slot = placed[0] if placed and not group.endpoint else next(free, None)
        if slot is None:
            text = f"and its endpoint need more than {MAX_SLOT} slots"
            raise LayoutError(error(Name.LARGE_ENDPOINT, text, guest.devices[card[0]].name))
        taken.add(slot)
        used = {places[m].function for m in group.members if m in places and places[m].slot == slot}
        functions = _functions(guest, card, used)
        found.update({member: PciAddress(bus=bus, slot=slot, function=functions[member]) for member in card})
    return found


def _cards(guest: Guest, group: DeviceGroup, members: list[int]) -> list[list[int]]:
    """The members that share a slot: all of an emulated unit, the functions of a host card."""
    if not group.endpoint:
        return [members] if members else []
    cards: dict[object, list[int]] = {}
    for member in members:
        address = guest.devices[member].address
        key = (address.domain, address.bus, address.slot) if address else member
        cards.setdefault(key, []).append(member)
    return list(cards.values())


def _functions(guest: Guest, card: list[int], used: set[int]) -> dict[int, int]:
    """The function of each member of a slot; one of them is 0, which is where most guests look first.

    used: the functions of the slot that are taken already.
    """
    devices = {member: guest.devices[member] for member in card}
    if any(device.usb2_group is not None for device in devices.values()):
        found: dict[int, int] = {}
        for member, device in devices.items():
            choices = (device.usb2_function, *range(_FUNCTIONS))
            found[member] = next(number for number in choices if number not in {*used, *found.values()})
        return found
    wanted = {member: device.address.function if device.address else 0 for member, device in devices.items()}
    if 0 in wanted.values():
        return wanted
    return {member: number for number, member in enumerate(sorted(card, key=wanted.__getitem__))}


def _diagnostics(guest: Guest, plan: _Plan, spares: int) -> Iterable[Diagnostic]:
    empty = plan.count - len(plan.groups) - len(plan.room.reserved) - plan.room.tail
    sharing = {bus: groups for bus, groups in plan.groups.items() if len(groups) > 1}
    if sharing:
        names = "; ".join(
            f"vPHB {bus}: "
            + ", ".join(guest.devices[member].name for group in sharing[bus] for member in group.members)
            for bus in sorted(sharing)
        )
        yield warning(Name.SHARED_VPHB, f"more devices than vPHBs, so these share: {names}")
    if empty < spares:
        yield warning(Name.TOO_FEW_SPARES, f"{empty} of {spares} spare vPHBs fit")
