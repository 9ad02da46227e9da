"""Devices that belong on one vPHB together: the functions of one slot, a USB 2 set, or an endpoint."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from ..model import Device, Guest, HostTopology


@dataclass(frozen=True, eq=False, repr=False)
class DeviceGroup:
    """Devices that belong on one vPHB together. A group equals only itself, since it is one of a guest's groups.

    Attributes:
        members: Their positions in the guest's devices.
        endpoint: Whether they are a partitionable endpoint of the host, so that nothing else may join them.
        is_nic: Whether they are an emulated NIC, with whatever shares its slot.
        iommu_group: Its IOMMU group, or None if unknown.
    """

    members: tuple[int, ...]
    endpoint: bool
    is_nic: bool
    iommu_group: int | None = None


def is_endpoint(device: Device, topology: HostTopology) -> bool:
    """Return whether a device is one of the host's, passed through.

    Args:
        device: The device.
        topology: Which networks hand out host devices.
    """
    return device.passthrough or device.network in topology.hostdev_networks


def group_devices(guest: Guest, topology: HostTopology) -> tuple[DeviceGroup, ...]:
    """Return the groups of a guest's devices, in the order of their first members.

    Args:
        guest: The guest as its domain XML describes it.
        topology: The IOMMU groups of its host devices.
    """
    leaders = list(range(len(guest.devices)))
    first_with: dict[Hashable, int] = {}
    for position, device in enumerate(guest.devices):
        for key in _keys(device, topology):
            _join(leaders, position, first_with.setdefault(key, position))
    members: dict[int, list[int]] = {}
    for position in range(len(guest.devices)):
        members.setdefault(_leader(leaders, position), []).append(position)
    return tuple(_make_group(guest, tuple(positions), topology) for positions in members.values())


def _leader(leaders: list[int], position: int) -> int:
    """Return the first device of the group that a device is in; leaders has a device before it, or itself."""
    while leaders[position] != position:
        leaders[position] = leaders[leaders[position]]
        position = leaders[position]
    return position


def _join(leaders: list[int], one: int, other: int) -> None:
    first, second = sorted((_leader(leaders, one), _leader(leaders, other)))
    leaders[second] = first


def _make_group(guest: Guest, members: tuple[int, ...], topology: HostTopology) -> DeviceGroup:
    first = guest.devices[members[0]]
    endpoint = is_endpoint(first, topology)
    is_nic = not endpoint and any(guest.devices[member].is_interface for member in members)
    return DeviceGroup(members, endpoint, is_nic, _iommu_group(first, topology))


def _iommu_group(device: Device, topology: HostTopology) -> int | None:
    return topology.iommu_groups.get(device.source) if device.source is not None else None


def _keys(device: Device, topology: HostTopology) -> Iterator[Hashable]:
    """Yield what ties a device to others: two devices with a key in common are in one group."""
    iommu_group = _iommu_group(device, topology)
    if iommu_group is not None:
        yield "iommu_group", iommu_group
        return
    if device.usb2_group is not None:
        yield "usb2", device.usb2_group
    if device.address is not None:
        at = device.address
        # A USB 2 set has functions of its own, so other devices in its slot are another group.
        yield "slot", is_endpoint(device, topology), device.usb2_group, at.domain, at.bus, at.slot
