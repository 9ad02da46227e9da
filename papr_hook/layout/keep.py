"""Which device groups stay on the bus that they have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..model import MAX_PHBS
from ..records import Record
from .capacity import Capacity, compute_capacity, reserved_buses, vphb_0_last
from .current import CurrentLayout
from .groups import DeviceGroup
from .order import endpoint_order


@dataclass(frozen=True, eq=False, repr=False)
class Kept(Record):
    """What a layout leaves where it is.

    Attributes:
        buses: The groups that stay, by bus.
        capacity: How the groups fit onto the guest's vPHBs.
    """

    buses: Mapping[int, tuple[DeviceGroup, ...]]
    capacity: Capacity


def find_kept(current: CurrentLayout, spares: int, elsewhere: Collection[DeviceGroup] = ()) -> Kept:
    """Return the groups that stay on their bus.

    A vPHB with a user-defined alias, or that reserve names, becomes reserved when all its devices leave.

    Args:
        current: The guest.
        spares: The spares that it should have.
        elsewhere: Groups that an earlier domain XML had on a vPHB other than 0.
    """
    guest = current.guest
    wanted = {phb.index for phb in guest.phbs if phb.named and phb.index < MAX_PHBS} | guest.reserve
    reserved = reserved_buses(guest)
    while True:
        owners = _owners(current, reserved, elsewhere)
        capacity = compute_capacity(current, spares, reserved, _has_nic_on_0(current, owners, elsewhere))
        if elsewhere and not capacity.fits_exclusively:
            return find_kept(current, spares)  # where devices share, no emulated one goes back
        if capacity.fits_exclusively or capacity.shortage is not None or len(owners) == len(current.groups):
            buses: dict[int, tuple[DeviceGroup, ...]] = {bus: (group,) for bus, group in owners.items()}
        else:
            buses = _keep_sharing(current, owners, capacity)
        left = wanted - set(buses) - reserved
        if not left:
            return Kept(buses, capacity)
        reserved |= left


def _owners(
    current: CurrentLayout, reserved: frozenset[int], elsewhere: Collection[DeviceGroup]
) -> dict[int, DeviceGroup]:
    """Return the group that each vPHB belongs to where each group gets its own.

    Another device leaves vPHB 0 for an emulated NIC that has no place, which libvirt alone would put there.
    """
    found = {bus: _owner(current, bus, reserved) for bus in current.on_bus}
    owners = {bus: group for bus, group in found.items() if group is not None}
    others = {bus: group for bus, group in owners.items() if bus != 0}
    if 0 in owners and not owners[0].is_nic and _has_nic_on_0(current, others, elsewhere):
        return others
    return owners


def _owner(current: CurrentLayout, bus: int, reserved: frozenset[int]) -> DeviceGroup | None:
    """Return the group that a vPHB belongs to, or None if all that are there have to leave.

    That is the only one, else the endpoint, else the first emulated NIC. An endpoint does not keep vPHB 0, and what
    the qemu:commandline puts there keeps all but the NIC off it.
    """
    if bus in reserved:
        return current.nic_on_bus_0 if bus == 0 else None
    groups = [group for group in current.on_bus[bus] if current.home(group) == bus]
    if len(groups) == len(current.on_bus[bus]) == 1 and bus not in current.bridged_buses:
        return groups[0]
    endpoints = [group for group in groups if group.endpoint and bus != 0]
    if endpoints:
        return min(endpoints, key=lambda group: endpoint_order(group, current))
    return next((group for group in groups if group.is_nic), None)


def _has_nic_on_0(
    current: CurrentLayout, owners: Mapping[int, DeviceGroup], elsewhere: Collection[DeviceGroup]
) -> bool:
    """Return whether vPHB 0 belongs to an emulated NIC, or will go to the first one without a place."""
    if 0 in owners:
        return owners[0].is_nic
    if 0 in current.guest.reserve:
        return False
    placed = {*owners.values(), *elsewhere}
    return any(group not in placed for group in current.nics)


def balanced_buses(current: CurrentLayout, capacity: Capacity) -> frozenset[int]:
    """Return the buses that emulated groups share as the ceiling allows; nothing if they share in another way.

    They share evenly, either all of them, or all but the NIC that has vPHB 0 to itself.

    Args:
        current: The guest.
        capacity: How its groups fit.
    """
    if capacity.fits_exclusively or capacity.shortage is not None:
        return frozenset()
    shared = _shared_buses(current, capacity)
    sizes = {bus: len(groups) for bus, groups in shared.items()}
    own_nic = capacity.nic_on_0 and 0 in capacity.reserved
    left = capacity.usable - capacity.endpoints
    needed = max(left - capacity.min_spares, 0) or left
    if len(sizes) <= left and _is_even(sizes, capacity.emulated - own_nic, needed):
        return frozenset(sizes)
    others = {bus: size for bus, size in sizes.items() if bus != 0}
    alone = current.nic_on_bus_0 is not None and shared.get(0) == [current.nic_on_bus_0]
    fits = len(sizes) <= left + own_nic
    if alone and fits and _is_even(others, capacity.others, capacity.shared_buses):
        return frozenset(sizes)
    return frozenset()


def _is_even(sizes: Mapping[int, int], total: int, buses: int) -> bool:
    counts = sizes.values()
    return sum(counts) == total and len(counts) >= buses and max(counts, default=0) - min(counts, default=0) <= 1


def _shared_buses(current: CurrentLayout, capacity: Capacity) -> dict[int, list[DeviceGroup]]:
    """Return the groups of each vPHB that holds emulated groups only, all of them wholly."""
    closed = capacity.reserved | current.bridged_buses
    return {
        bus: groups
        for bus, groups in current.on_bus.items()
        if bus not in closed and all(not group.endpoint and current.home(group) == bus for group in groups)
    }


def _keep_sharing(
    current: CurrentLayout, owners: Mapping[int, DeviceGroup], capacity: Capacity
) -> dict[int, tuple[DeviceGroup, ...]]:
    """Return what stays where the emulated groups have to share vPHBs."""
    kept: dict[int, tuple[DeviceGroup, ...]] = {bus: (group,) for bus, group in owners.items() if group.endpoint}
    nic = owners.get(0)
    if nic is not None and nic is current.nic_on_bus_0 and not capacity.joins_nic:
        kept[0] = (nic,)
    shared = _shared_buses(current, capacity)
    balanced = balanced_buses(current, capacity)
    if balanced:
        return {**kept, **{bus: tuple(shared[bus]) for bus in balanced}}
    for_nic = {0} if capacity.nic_on_0 and not capacity.joins_nic else set()
    candidates = {bus: groups for bus, groups in shared.items() if bus not in kept and bus not in for_nic}
    return {**kept, **_within_quota(current, candidates, capacity)}


def _within_quota(
    current: CurrentLayout, shared: Mapping[int, list[DeviceGroup]], capacity: Capacity
) -> dict[int, tuple[DeviceGroup, ...]]:
    """Return the groups that may stay together when all are spread evenly; of too many, the first NIC stays."""
    groups, buses = spread(capacity, len(shared))
    quota, more = divmod(groups, buses) if buses else (0, 0)
    staying: dict[int, tuple[DeviceGroup, ...]] = {}
    nic = current.nic_on_bus_0 if capacity.joins_nic else None
    for bus in sorted(shared, key=lambda bus: (bus != 0, bus) if nic is not None else (False, vphb_0_last(bus))):
        if len(staying) + (nic is None and capacity.joins_nic) >= buses:
            break
        joining = bus == 0 and capacity.joins_nic and nic is None
        fits = len(shared[bus]) + joining <= quota + bool(more)
        group = shared[bus] if fits else [group for group in shared[bus] if group.is_nic][:1]
        if group:
            staying[bus] = tuple(group)
            more -= len(group) > quota
    return staying


def spread(capacity: Capacity, buses: int) -> tuple[int, int]:
    """Return how many emulated groups share how many vPHBs.

    Args:
        capacity: How the groups fit.
        buses: The vPHBs that emulated groups share already.
    """
    if capacity.joins_nic:
        return capacity.emulated, capacity.shared_buses + 1
    left = capacity.usable - capacity.endpoints - (capacity.nic_on_0 and 0 not in capacity.reserved)
    return capacity.others, max(capacity.shared_buses, min(buses, left))
