"""Which empty vPHB is meant for which kind of device.

An emulated NIC gets a target index that depends only on how many emulated NICs come before it, so that neither disks
nor host devices rename it in the guest. The k-th after the first has target index 31-k, so one spare carries the
target index of the next one, and other devices take that spare last.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ..model import MAX_PHBS, Guest, HostTopology
from .groups import DeviceGroup, group_devices


class SpareUse(Enum):
    """What an empty vPHB is wanted for."""

    NIC = "emulated NIC"
    ENDPOINT = "endpoint"
    OTHER = "other device"


def spare_use(group: DeviceGroup) -> SpareUse:
    """Return what a device group wants an empty vPHB for."""
    if group.endpoint:
        return SpareUse.ENDPOINT
    return SpareUse.NIC if group.is_nic else SpareUse.OTHER


def nic_target(number: int) -> int | None:
    """Return the target index of an emulated NIC, or None if there are more than target indexes.

    Args:
        number: How many emulated NICs come before it.
    """
    if number == 0:
        return 0
    return MAX_PHBS - number if number < MAX_PHBS else None


def order_spares(
    empty: Iterable[int], use: SpareUse, guest: Guest, topology: HostTopology, position: int | None = None
) -> list[int]:
    """Return the empty vPHBs of a guest, the one that is meant for a device first.

    The first emulated NIC of a guest goes to vPHB 0, and each further one to the vPHB with its target index. An
    endpoint goes to the lowest index other than 0, as libvirt places host devices. Any other device leaves those to
    them if it can, and vPHB 0 comes last, because libvirt puts devices without an address there.

    Args:
        empty: The empty vPHBs to choose from, which may be some that libvirt would add.
        use: What the device is.
        guest: The guest, without the device, or with it at position.
        topology: What is known about the guest's host.
        position: The index of the device in guest.devices if it is there.

    Returns:
        All of the empty vPHBs; the device goes to the first.
    """
    groups = group_devices(guest, topology)
    number = sum(group.is_nic and position not in group.members for group in groups)
    targets = {phb.index: phb.target for phb in guest.phbs}
    ordered = sorted(empty)
    wanted = nic_target(number)
    for_nic = [bus for bus in ordered if (bus == 0 if number == 0 else targets.get(bus, -1) == wanted is not None)]
    for_endpoint = [bus for bus in ordered if bus != 0 and bus not in for_nic][:1]
    others = [bus for bus in ordered if bus not in {0, *for_nic, *for_endpoint}]
    last = [bus for bus in ordered if bus == 0 and bus not in for_nic]
    if use is SpareUse.NIC:
        return [*for_nic, *others, *for_endpoint, *last]
    if use is SpareUse.ENDPOINT:
        return [*for_endpoint, *others, *for_nic, *last]
    return [*others, *for_endpoint, *for_nic, *last]
