"""What moves as one: a device, the functions of one slot, a USB 2 set, or an endpoint."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from .model import Device, Guest, HostFacts


@dataclass(frozen=True)
class Unit:
    """Devices that belong on one vPHB together.

    members: their positions in the guest's devices.
    endpoint: they are a host's partitionable endpoint, so that nothing else may join them.
    group: its IOMMU group, where the host could tell.
    """

    members: tuple[int, ...]
    endpoint: bool
    group: int | None = None


def is_endpoint(device: Device, facts: HostFacts) -> bool:
    """Whether a device is one of the host's, passed through."""
    return device.passthrough or device.network in facts.hostdev_networks


def find_units(guest: Guest, facts: HostFacts) -> tuple[Unit, ...]:
    """The guest's devices as units, in the order of their first members."""
    of_key: dict[Hashable, set[int]] = {}
    of_device: dict[int, set[int]] = {}
    for position, device in enumerate(guest.devices):
        members = {position}
        for key in _keys(device, facts):
            members |= of_key.get(key, set())
        for member in members:
            of_device[member] = members
            of_key.update((key, members) for key in _keys(guest.devices[member], facts))
    units = {min(members): members for members in of_device.values()}
    return tuple(_unit(guest, tuple(sorted(units[first])), facts) for first in sorted(units))


def _unit(guest: Guest, members: tuple[int, ...], facts: HostFacts) -> Unit:
    first = guest.devices[members[0]]
    return Unit(members, is_endpoint(first, facts), _group(first, facts))


def _group(device: Device, facts: HostFacts) -> int | None:
    return facts.groups.get(device.source) if device.source is not None else None


def _keys(device: Device, facts: HostFacts) -> Iterator[Hashable]:
    """What ties a device to others: two devices with a key in common are one unit."""
    group = _group(device, facts)
    if group is not None:
        yield "group", group
        return
    if device.companions is not None:
        yield "companions", device.companions
    if device.address is not None:
        at = device.address
        # A USB 2 set has functions of its own, so what else is in its slot is another device.
        yield "slot", is_endpoint(device, facts), device.companions, at.domain, at.bus, at.slot
