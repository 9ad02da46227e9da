"""Where the devices of a guest were in an earlier domain XML of it.

Clients define a guest again and again without PCI addresses. What a device had before tells where it goes, so that the
guest sees it under the same name. Nothing in an earlier domain XML is ever a reason to fail: what does not help is
ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..model import Device, Guest, HostTopology, PciAddress
from .current import CurrentLayout
from .groups import DeviceGroup, is_endpoint
from .targets import assigned_targets


@dataclass(frozen=True)
class Place:
    """Where a group of a guest's devices was.

    Attributes:
        bus: The index of its vPHB.
        target: The target index of its vPHB.
        node: The NUMA cell of its vPHB, or None.
        addresses: Its devices' addresses, by their position in the guest's devices.
    """

    bus: int
    target: int
    node: int | None
    addresses: Mapping[int, PciAddress]


def previous_places(current: CurrentLayout, previous: Iterable[Guest]) -> dict[DeviceGroup, Place]:
    """Return where the groups of a guest were, as far as each was alone on its vPHB, or was the NIC of vPHB 0.

    Args:
        current: The guest as it is now.
        previous: The guest as it was. Of several, the later ones count only for devices that the earlier ones lack.
    """
    places: dict[DeviceGroup, Place] = {}
    known: set[int] = set()
    for guest in previous:
        partner = match_devices(guest, current.guest, current.topology)
        found = _places_in(guest, current, partner)
        places.update((group, place) for group, place in found.items() if known.isdisjoint(group.members))
        known.update(partner.values())
    return places


def _places_in(previous: Guest, current: CurrentLayout, partner: Mapping[int, int]) -> dict[DeviceGroup, Place]:
    """Return where the groups of a guest were in one earlier domain XML.

    Args:
        previous: The guest as it was.
        current: The guest as it is now.
        partner: The current position of each of the earlier devices that are still there.
    """
    before = CurrentLayout(previous, current.topology)
    group_of = {member: group for group in current.groups for member in group.members}
    targets = assigned_targets(before)
    nodes = {phb.index: phb.node for phb in previous.phbs}
    places: dict[DeviceGroup, Place] = {}
    for bus, old in sorted(_exclusive_groups(before).items()):
        pairs = {partner[member]: member for member in old.members if member in partner}
        for group in {group_of[member]: None for member in pairs}:
            if not _is_same(group, old, pairs) or group in places:
                continue
            addresses = {new: previous.devices[pairs[new]].address for new in group.members if new in pairs}
            found = {new: address for new, address in addresses.items() if address is not None}
            if found and bus in targets:
                places[group] = Place(bus, targets[bus], nodes.get(bus), found)
                break
    return places


def _is_same(group: DeviceGroup, old: DeviceGroup, pairs: Mapping[int, int]) -> bool:
    """Return whether a group is the one that it was: an endpoint may gain and lose members, another group may not."""
    if group.endpoint or old.endpoint:
        return group.endpoint and old.endpoint
    return len(group.members) == len(old.members) and all(member in pairs for member in group.members)


def _exclusive_groups(before: CurrentLayout) -> dict[int, DeviceGroup]:
    """Return the group that was alone on each vPHB, and on vPHB 0 the first emulated NIC."""
    closed = before.guest.used_by_commandline
    found = {
        bus: groups[0]
        for bus, groups in before.on_bus.items()
        if len(groups) == 1
        and before.home(groups[0]) == bus
        and bus not in before.bridged_buses
        and (bus not in closed or groups[0].is_nic)
    }
    if before.nic_on_bus_0 is not None:
        found[0] = before.nic_on_bus_0
    return found


def match_devices(previous: Guest, guest: Guest, topology: HostTopology) -> dict[int, int]:
    """Return which devices of an earlier domain XML are which of a guest, by their positions.

    Devices are the same if they have the same kind and identity. An identity that occurs twice counts as none. Devices
    without an identity are matched by their place among those of their kind that are left.

    Args:
        previous: The guest as it was.
        guest: The guest as it is now.
        topology: What is known about its host.
    """
    old, new = _keys(previous.devices, topology), _keys(guest.devices, topology)
    by_key = {key: position for position, key in enumerate(new) if key is not None}
    found = {position: by_key[key] for position, key in enumerate(old) if key is not None and key in by_key}
    nameless: dict[Hashable, list[int]] = {}
    for position, device in enumerate(guest.devices):
        if new[position] is None:
            nameless.setdefault(_kind(device, topology), []).append(position)
    waiting = {kind: iter(positions) for kind, positions in nameless.items()}
    for position, device in enumerate(previous.devices):
        if position not in found:
            partner = next(waiting.get(_kind(device, topology), iter(())), None)
            if partner is not None:
                found[position] = partner
    return found


def _kind(device: Device, topology: HostTopology) -> Hashable:
    return device.kind, is_endpoint(device, topology)


def _keys(devices: Sequence[Device], topology: HostTopology) -> list[Hashable | None]:
    """Return what identifies each device, None if nothing does."""
    keys = [(device.kind, device.identity) if device.identity is not None else None for device in devices]
    counts = Counter(keys)
    return [key if counts[key] == 1 else None for key in keys]
