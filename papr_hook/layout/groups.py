"""What moves as one: a device, the functions of one slot, a USB 2 set, or an endpoint."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from ..model import Device, Guest, HostTopology


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that belong on one vPHB together.

    members: their positions in the guest's devices.
    endpoint: they are a host's partitionable endpoint, so that nothing else may join them.
    group: its IOMMU group, where the host could tell.
    """

    members: tuple[int, ...]
    endpoint: bool
    iommu_group: int | None = None


def is_endpoint(device: Device, topology: HostTopology) -> bool:
    """Whether a device is one of the host's, passed through."""
    return device.passthrough or device.network in topology.hostdev_networks


def group_devices(guest: Guest, topology: HostTopology) -> tuple[DeviceGroup, ...]:
    """The guest's devices as units, in the order of their first members."""
    of_key: dict[Hashable, set[int]] = {}
    of_device: dict[int, set[int]] = {}
    for position, device in enumerate(guest.devices):
        members = {position}
        for key in _keys(device, topology):
            members |= of_key.get(key, set())
        for member in members:
            of_device[member] = members
            of_key.update((key, members) for key in _keys(guest.devices[member], topology))
    groups = {min(members): members for members in of_device.values()}
    return tuple(_unit(guest, tuple(sorted(groups[first])), topology) for first in sorted(groups))


def _unit(guest: Guest, members: tuple[int, ...], topology: HostTopology) -> DeviceGroup:
    first = guest.devices[members[0]]
    return DeviceGroup(members, is_endpoint(first, topology), _group(first, topology))


def _group(device: Device, topology: HostTopology) -> int | None:
    return topology.iommu_groups.get(device.source) if device.source is not None else None


def _keys(device: Device, topology: HostTopology) -> Iterator[Hashable]:
    """What ties a device to others: two devices with a key in common are one unit."""
    iommu_group = _group(device, topology)
    if iommu_group is not None:
        yield "iommu_group", iommu_group
        return
    if device.usb2_group is not None:
        yield "usb2", device.usb2_group
    if device.address is not None:
        at = device.address
        # A USB 2 set has functions of its own, so what else is in its slot is another device.
        yield "slot", is_endpoint(device, topology), device.usb2_group, at.domain, at.bus, at.slot
