"""Devices that must stay together."""

from __future__ import annotations

from papr_hook.layout.groups import group_devices
from papr_hook.model import HostTopology
from tests.helpers.small_guests import at, disk, hostdev, nic, read, root


def test_functions_of_one_slot_are_one_group() -> None:
    guest = read(root(0), disk("vda", at(0, 3)), disk("vdb", at(0, 4)), disk("vdc", at(0, 3, 1)))
    assert [group.members for group in group_devices(guest, HostTopology())] == [(0, 2), (1,)]


def test_an_iommu_group_is_one_group() -> None:
    """Wherever its devices are in the domain XML."""
    guest = read(hostdev(1), disk("vda"), hostdev(2), hostdev(3))
    sources = [device.source for device in guest.devices if device.source is not None]
    groups = group_devices(guest, HostTopology(iommu_groups={sources[0]: 7, sources[1]: 8, sources[2]: 7}))
    assert [(group.members, group.endpoint, group.iommu_group) for group in groups] == [
        ((0, 3), True, 7),
        ((1,), False, None),
        ((2,), True, 8),
    ]


def test_only_an_emulated_nic_is_one() -> None:
    guest = read(nic(1), disk("vda"), hostdev(1))
    groups = group_devices(guest, HostTopology())
    assert [group.is_nic for group in groups] == [True, False, False]
