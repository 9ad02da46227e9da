"""Target indexes: the PCI domain that the guest sees for each vPHB."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..model import MAX_PHBS, Guest
from .current import CurrentLayout


def valid_targets(guest: Guest) -> dict[int, int]:
    """Return the target index of each vPHB that has one of its own: 0 for index 0, and only for it."""
    taken = {0, *guest.commandline_targets}
    targets = {0: 0}
    for phb in sorted(guest.phbs, key=lambda phb: phb.index):
        target = phb.target
        if target is not None and 0 < phb.index < MAX_PHBS and 0 < target < MAX_PHBS and target not in taken:
            targets[phb.index] = target
            taken.add(target)
    return targets


def fill_targets(targets: Mapping[int, int], buses: Iterable[int], taken: Collection[int]) -> dict[int, int]:
    """Return target indexes with the lowest unused ones added for the buses that have none, as libvirt does.

    Args:
        targets: The target indexes so far, by bus.
        buses: Buses that need one.
        taken: Target indexes that cannot be used.
    """
    used = {*taken, *targets.values()}
    unused = (target for target in range(MAX_PHBS) if target not in used)
    filled = dict(targets)
    for bus in sorted(buses):
        target = next(unused, None) if bus not in filled else None
        if target is not None:
            filled[bus] = target
    return filled


def assigned_targets(current: CurrentLayout, more: Iterable[int] = ()) -> dict[int, int]:
    """Return the target index of each vPHB up to the highest bus, as libvirt would fill in the missing ones.

    Args:
        current: The guest.
        more: Buses that are in use though no address in the domain XML says so.
    """
    guest = current.guest
    highest = max([current.highest_bus, *more])
    buses = [bus for bus in range(min(highest + 1, MAX_PHBS)) if bus not in current.bridge_indexes]
    return fill_targets(valid_targets(guest), buses, guest.commandline_targets)
