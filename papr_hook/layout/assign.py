"""Device groups to vPHBs.

A place is given in this precedence: an own address that complies, the earlier domain XML's, vPHB 0 for the first
emulated NIC, the order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain

from ..diagnostics import Name, error
from ..errors import LayoutError
from ..model import MAX_PHBS
from .capacity import Capacity, vphb_0_last
from .current import CurrentLayout
from .groups import DeviceGroup
from .keep import Kept, spread
from .order import device_order, endpoint_order
from .previous import Place
from .spares import nic_target
from .targets import assigned_targets, fill_targets, valid_targets


@dataclass(frozen=True)
class Assignment:
    """Which groups go to which vPHB.

    Attributes:
        count: The vPHBs that there will be.
        groups: The groups of each vPHB that holds any.
        kept: The groups that stay on the vPHB that they have.
        places: The places in the earlier domain XML that groups go back to.
        owner: The emulated NIC that vPHB 0 belongs to, or None.
        targets: The target index of each vPHB.
        nodes: NUMA cells that come with a group that moves, by bus.
        capacity: How the groups fit.
    """

    count: int
    groups: Mapping[int, tuple[DeviceGroup, ...]]
    kept: frozenset[DeviceGroup]
    places: Mapping[DeviceGroup, Place]
    owner: DeviceGroup | None
    targets: Mapping[int, int]
    nodes: Mapping[int, int]
    capacity: Capacity


@dataclass
class _Draft:
    """An assignment in the making; groups move from waiting to groups."""

    current: CurrentLayout
    capacity: Capacity
    groups: dict[int, list[DeviceGroup]]
    waiting: dict[DeviceGroup, None]
    targets: dict[int, int]
    places: dict[DeviceGroup, Place] = field(default_factory=dict)
    nodes: dict[int, int] = field(default_factory=dict)
    owner: DeviceGroup | None = None

    def put(self, group: DeviceGroup, bus: int) -> None:
        """Put a waiting group on a bus."""
        del self.waiting[group]
        self.groups.setdefault(bus, []).append(group)

    @property
    def used_targets(self) -> set[int]:
        """The target indexes that are given."""
        return {0, *self.targets.values(), *self.current.guest.commandline_targets}


def assign_buses(current: CurrentLayout, kept: Kept, spares: int, places: Mapping[DeviceGroup, Place]) -> Assignment:
    """Return a vPHB for each group.

    Args:
        current: The guest.
        kept: What stays where it is.
        spares: The empty vPHBs that the guest should have.
        places: Where its groups were in an earlier domain XML.

    Raises:
        LayoutError: There would be more vPHBs than a guest can have.
    """
    capacity = kept.capacity
    staying = {group for groups in kept.buses.values() for group in groups}
    exclusive = capacity.fits_exclusively or len(staying) == len(current.groups)
    draft = _Draft(
        current,
        capacity,
        {bus: list(groups) for bus, groups in kept.buses.items()},
        {group: None for group in current.groups if group not in staying},
        _kept_targets(current, {*kept.buses, *capacity.reserved}),
    )
    _recall(draft, places, exclusive)
    _choose_owner(draft)
    count = _count(draft, spares, exclusive)
    free = _Free(draft, count)
    if exclusive and places and len(draft.waiting) > len(free.buses):
        return assign_buses(current, kept, spares, {})
    if exclusive:
        _separate(draft, free)
    else:
        _share(draft, free)
    return Assignment(
        count=count,
        groups={bus: tuple(groups) for bus, groups in draft.groups.items()},
        kept=frozenset(staying),
        places=draft.places,
        owner=draft.owner,
        targets=_all_targets(draft, free, count),
        nodes=draft.nodes,
        capacity=capacity,
    )


def _kept_targets(current: CurrentLayout, buses: Collection[int]) -> dict[int, int]:
    """Return the target indexes of vPHBs that stay; a missing one is filled in as libvirt does."""
    targets = fill_targets(assigned_targets(current, buses), buses, current.guest.commandline_targets)
    return {bus: target for bus, target in targets.items() if bus in buses or bus == 0}


def _recall(draft: _Draft, places: Mapping[DeviceGroup, Place], exclusive: bool) -> None:
    """Put groups back where they were, if nothing has to share for it.

    Where emulated devices have to share, only the NIC of vPHB 0 and endpoints go back. If the domain XML gives an index
    another target index, the vPHB with the remembered target index counts; if there is none, the index itself may get
    it, once all others are back.
    """
    written = valid_targets(draft.current.guest)
    with_target = {target: bus for bus, target in written.items()}
    for may_renumber in (False, True):
        for group, place in [(group, places[group]) for group in draft.waiting if group in places]:
            bus = place.bus
            if written.get(bus, place.target) != place.target:
                bus = with_target.get(place.target, bus if may_renumber else -1)
            is_nic_of_0 = bus == 0 and group.is_nic
            wanted = exclusive or is_nic_of_0 or (group.endpoint and bus != 0)
            if wanted and _is_free(draft, bus, place.target, is_nic_of_0):
                _put_back(draft, group, place, bus)


def _is_free(draft: _Draft, bus: int, target: int, is_nic: bool) -> bool:
    """Return whether a group may go back to a bus.

    Args:
        draft: The assignment so far.
        bus: The bus, which is negative if there is none.
        target: The target index that it had.
        is_nic: Whether the group is an emulated NIC that goes to vPHB 0, which only reserve keeps it off.
    """
    reserved = draft.current.guest.reserve if is_nic else draft.capacity.reserved
    limit = draft.capacity.ceiling - draft.capacity.reserved_tail
    closed = {*draft.groups, *draft.current.bridge_indexes, *reserved}
    return 0 <= bus < limit and bus not in closed and (bus == 0 or target not in draft.used_targets)


def _put_back(draft: _Draft, group: DeviceGroup, place: Place, bus: int) -> None:
    draft.put(group, bus)
    draft.places[group] = place
    draft.targets[bus] = place.target
    if place.node is not None and bus != 0 and any(cell.id == place.node for cell in draft.current.guest.cells):
        draft.nodes[bus] = place.node


def _choose_owner(draft: _Draft) -> None:
    """Give vPHB 0 to the emulated NIC that it belongs to, if nothing else is there.

    That is the one with an address there, else the one that had it, else the first without a place.
    """
    current = draft.current
    there = draft.groups.get(0, [])
    nic = current.nic_on_bus_0
    if nic is not None and nic in there:
        draft.owner = nic
    elif there:
        draft.owner = there[0] if draft.places.get(there[0]) is not None and there[0].is_nic else None
        if draft.owner is None and draft.capacity.joins_nic:
            draft.owner = _first_nic(draft)
    elif 0 not in current.guest.reserve:
        draft.owner = _first_nic(draft)
    if draft.owner is not None and draft.owner in draft.waiting:
        draft.put(draft.owner, 0)


def _first_nic(draft: _Draft) -> DeviceGroup | None:
    return next((group for group in draft.waiting if group.is_nic), None)


def _count(draft: _Draft, spares: int, exclusive: bool) -> int:
    """Return how many vPHBs there have to be: the existing ones, and those for groups and spares."""
    capacity, current = draft.capacity, draft.current
    taken = {*draft.groups, *capacity.reserved}
    highest = max(current.roots | taken, default=0)
    tail = capacity.reserved_tail
    if exclusive:
        wanted = len(current.groups) - (draft.owner is not None and 0 in capacity.reserved) + spares
    else:
        _, buses = spread(capacity, len(_spots(draft)))
        apart = capacity.nic_on_0 and not capacity.joins_nic and 0 not in capacity.reserved
        wanted = capacity.endpoints + buses + apart + capacity.min_spares
    wanted += len(capacity.reserved) + tail
    count = max(highest + 1 + (tail if highest in taken else 0), min(wanted, capacity.ceiling))
    if count > capacity.ceiling:
        text = f"the controllers and the qemu:commandline have more than {MAX_PHBS} PHBs together"
        raise LayoutError(error(Name.TOO_MANY_PHBS, text))
    return count


class _Free:
    """The vPHBs that are free, and the target indexes that they have in the domain XML.

    The layout may give a free vPHB another target index, since nothing is on it.
    """

    def __init__(self, draft: _Draft, count: int) -> None:
        """Collect the free vPHBs below count."""
        closed = {*draft.groups, *draft.capacity.reserved}
        self._draft = draft
        buses = sorted(range(count - draft.capacity.reserved_tail), key=vphb_0_last)
        self.buses = [bus for bus in buses if bus not in closed]
        self.targets = {bus: t for bus, t in valid_targets(draft.current.guest).items() if bus in self.buses}
        self._nodes = {phb.index: phb.node for phb in draft.current.guest.phbs if phb.node is not None}
        self._for_nics: set[int | None] = {nic_target(number) for number in range(1, len(draft.current.nics) + 1)}

    def take(self, node: int | None = None) -> int:
        """Return a vPHB for a group other than a NIC: of its cell, else the lowest; those for NICs and 0 last."""
        bus = min(self.buses, key=lambda bus: (self._nodes.get(bus) != node, bus == 0, self._is_for_nic(bus), bus))
        target = self.targets.get(bus)
        if target is not None and target not in self._draft.used_targets:
            self._draft.targets[bus] = target
        return self._remove(bus)

    def take_for_nic(self, number: int) -> int:
        """Return a vPHB for the emulated NIC that so many come before, and give it its target index."""
        used = self._draft.used_targets
        highest = nic_target(max(number, 1)) or 0
        wanted = next((target for target in range(highest, 0, -1) if target not in used), None)
        with_target = (bus for bus in self.buses if self.targets.get(bus) == wanted)
        without_target = (bus for bus in self.buses if bus not in self.targets)
        bus = next(chain(with_target, without_target, self.buses))
        if bus != 0 and wanted is not None:
            self._draft.targets[bus] = wanted
        return self._remove(bus)

    def _is_for_nic(self, bus: int) -> bool:
        return bus in self.targets and self.targets[bus] in self._for_nics

    def _remove(self, bus: int) -> int:
        self.buses.remove(bus)
        return bus


def _separate(draft: _Draft, free: _Free) -> None:
    """Give each waiting group its own vPHB."""
    current = draft.current
    nodes = {phb.index: phb.node for phb in current.guest.phbs if phb.node is not None}
    numbers = nic_numbers(current, draft.owner)
    for group in _in_order(draft):
        node = next((nodes[at.bus] for at in current.addresses(group) if at.bus in nodes), None)
        bus = free.take_for_nic(numbers[group]) if group in numbers else free.take(node)
        draft.put(group, bus)
        if node is not None and bus != 0:
            draft.nodes[bus] = node


def _share(draft: _Draft, free: _Free) -> None:
    """Give each waiting endpoint its own vPHB, and spread the emulated groups evenly over the others."""
    order = _in_order(draft)
    for group in order:
        if group.endpoint:
            draft.put(group, free.take())
    spots = _spots(draft)
    _, buses = spread(draft.capacity, len(spots))
    numbers = nic_numbers(draft.current, draft.owner)
    for group in [group for group in order if group in numbers][: max(buses - len(spots), 0)]:
        bus = free.take_for_nic(numbers[group])
        draft.put(group, bus)
        spots[bus] = draft.groups[bus]
    while len(spots) < buses:
        bus = free.take()
        spots[bus] = draft.groups[bus] = []
    for group in order:
        if group in draft.waiting and not group.endpoint:
            draft.put(group, min(spots, key=lambda bus: (len(spots[bus]), vphb_0_last(bus))))


def _spots(draft: _Draft) -> dict[int, list[DeviceGroup]]:
    """Return the vPHBs that emulated groups share; the NIC's own is not one of them."""
    apart = draft.owner is not None and not draft.capacity.joins_nic
    return {
        bus: groups
        for bus, groups in draft.groups.items()
        if not any(group.endpoint for group in groups) and not (apart and bus == 0)
    }


def nic_numbers(current: CurrentLayout, owner: DeviceGroup | None) -> dict[DeviceGroup, int]:
    """Return how many emulated NICs come before each: none before the one that vPHB 0 belongs to."""
    nics = [owner] if owner is not None else []
    nics += [group for group in current.nics if group is not owner]
    return {group: number for number, group in enumerate(nics)}


def _in_order(draft: _Draft) -> list[DeviceGroup]:
    """Return the waiting groups in the order in which they are placed: endpoints, NICs, the rest."""
    current = draft.current
    endpoints = [group for group in draft.waiting if group.endpoint]
    nics = [group for group in draft.waiting if group.is_nic]
    rest = [group for group in draft.waiting if not group.endpoint and not group.is_nic]
    return [
        *sorted(endpoints, key=lambda group: endpoint_order(group, current)),
        *nics,
        *sorted(rest, key=lambda group: device_order(group, current)),
    ]


def _all_targets(draft: _Draft, free: _Free, count: int) -> dict[int, int]:
    """Return the target indexes of all vPHBs.

    Those in the domain XML stay where nothing else needs them, one spare gets that of the next emulated NIC, and the
    rest get the lowest unused.
    """
    targets = {0: 0, **draft.targets}
    for bus, target in valid_targets(draft.current.guest).items():
        if bus not in targets and target not in targets.values():
            targets[bus] = target
    number = len(draft.current.nics)
    wanted = nic_target(number)
    used = {*targets.values(), *draft.current.guest.commandline_targets}
    new = [bus for bus in free.buses if bus not in targets and bus != 0]
    if number and wanted is not None and wanted not in used and new:
        targets[max(new)] = wanted
    return fill_targets(targets, range(count), draft.current.guest.commandline_targets)
