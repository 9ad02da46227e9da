"""Compute a layout: every device and every endpoint on its own vPHB, and empty vPHBs for hotplug."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..diagnostics import Diagnostic, Name, error, warning
from ..errors import LayoutError
from ..model import Guest, HostTopology, Layout
from .addresses import make_addresses, make_phbs
from .assign import Assignment, assign_buses
from .capacity import commandline_clashes
from .current import CurrentLayout
from .keep import find_kept
from .previous import previous_places


def compute_layout(guest: Guest, spares: int, topology: HostTopology, previous: Sequence[Guest] = ()) -> Layout:
    """Return the layout of a guest.

    Args:
        guest: The guest as its domain XML describes it.
        spares: The empty vPHBs that it should have, 0 to 30.
        topology: What is known about its host.
        previous: The guest as earlier domain XMLs describe it; the first counts most.

    Raises:
        LayoutError: No layout meets the rules.
    """
    current = CurrentLayout(guest, topology)
    places = previous_places(current, previous)
    kept = find_kept(current, spares, {group for group, place in places.items() if place.bus != 0})
    if kept.capacity.shortage is not None:
        raise LayoutError(kept.capacity.shortage)
    if 0 in guest.commandline_targets:
        text = "the qemu:commandline adds a PHB with index 0, which every pseries guest has already"
        raise LayoutError(error(Name.COMMANDLINE_PHB, text))
    assignment = assign_buses(current, kept, spares, places)
    phbs = make_phbs(current, assignment)
    clash = next(commandline_clashes(guest, phbs), None)
    if clash is not None:
        raise LayoutError(clash)
    return Layout(
        phbs=phbs,
        addresses=make_addresses(current, assignment),
        diagnostics=tuple(_diagnostics(guest, assignment, spares)),
    )


def lacks_place(guest: Guest, spares: int, topology: HostTopology) -> bool:
    """Return whether a device of a guest has no address that stays, so that an earlier domain XML would help.

    Args:
        guest: The guest as its domain XML describes it.
        spares: The empty vPHBs that it should have.
        topology: What is known about its host.
    """
    if any(device.address is None for device in guest.devices):
        return True
    current = CurrentLayout(guest, topology)
    kept = find_kept(current, spares)
    return sum(len(groups) for groups in kept.buses.values()) < len(current.groups)


def _diagnostics(guest: Guest, assignment: Assignment, spares: int) -> Iterator[Diagnostic]:
    """Yield what the administrator should know: which devices share a vPHB, and how many spares there are."""
    capacity = assignment.capacity
    used = {*assignment.groups, *capacity.reserved}
    empty = assignment.count - len(used) - capacity.reserved_tail
    sharing = {bus: groups for bus, groups in assignment.groups.items() if len(groups) > 1}
    if sharing:
        names = "; ".join(
            f"vPHB {bus}: "
            + ", ".join(guest.devices[member].name for group in sharing[bus] for member in group.members)
            for bus in sorted(sharing)
        )
        yield warning(Name.SHARED_VPHB, f"more devices than vPHBs, so these share: {names}")
    if empty < spares:
        yield warning(Name.TOO_FEW_SPARES, f"{empty} of {spares} spare vPHBs fit")
