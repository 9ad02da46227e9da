"""Slots and functions on the vPHB that a device gets."""

from __future__ import annotations

import pytest

from papr_hook.layout.addresses import first_nic_slot
from papr_hook.layout.compute import compute_layout
from papr_hook.layout.current import CurrentLayout
from papr_hook.model import HostTopology
from tests.helpers.small_guests import at, disk, hostdev, nic, read, root


@pytest.mark.parametrize(
    ("devices", "slot"),
    [
        ([nic(1)], 1),
        ([nic(1), disk("vda", at(0, 1))], 2),
        ([nic(1), disk("vda", at(0, 2))], 1),
        ([nic(1), "<filesystem><target dir='share'/></filesystem>"], 2),
        ([nic(1), *(disk(f"d{n}", at(0, n)) for n in range(1, 32))], 1),
    ],
    ids=["nothing else", "slot 1 taken", "slot 2 taken", "a filesystem comes first", "bus 0 is full"],
)
def test_the_first_nic_is_where_libvirt_alone_puts_it(devices: list[str], slot: int) -> None:
    assert first_nic_slot(CurrentLayout(read(root(0), *devices), HostTopology())) == slot


def test_slots_of_an_endpoint_ascend_in_host_order() -> None:
    guest = read(hostdev(3), hostdev(1), hostdev(2))
    sources = [device.source for device in guest.devices if device.source is not None]
    made = compute_layout(guest, 4, HostTopology(iommu_groups=dict.fromkeys(sources, 7)))
    slots = {str(device.source): address.slot for device, address in zip(guest.devices, made.addresses)}
    assert slots == {"0000:01:01.0": 1, "0000:01:02.0": 2, "0000:01:03.0": 3}
