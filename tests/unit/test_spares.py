"""Which empty vPHB an attached device gets."""

from __future__ import annotations

from papr_hook.layout.spares import SpareUse, nic_target, order_spares
from papr_hook.model import Device, Guest, HostTopology, PciAddress, Phb

HOST = HostTopology()


def nic(bus: int | None) -> Device:
    """An emulated NIC, alone on a vPHB or without an address."""
    return Device("<interface>", kind="interface", address=None if bus is None else PciAddress(bus=bus, slot=1))


def guest(*devices: Device, targets: dict[int, int]) -> Guest:
    """A guest with some vPHBs, by index, each with its target index."""
    return Guest("g", phbs=tuple(Phb(index, target) for index, target in targets.items()), devices=devices)


ONE_NIC = guest(nic(0), targets={0: 0, 1: 1, 2: 2, 3: 30, 4: 3})


def test_the_first_nic_of_a_guest_goes_to_vphb_0() -> None:
    """Where libvirt alone would put it."""
    none = guest(targets={0: 0, 1: 1, 2: 2})
    assert order_spares({0, 1, 2}, SpareUse.NIC, none, HOST) == [0, 2, 1]


def test_a_further_nic_goes_to_its_target_index() -> None:
    """The spare for it is known by its target index, whatever its own index."""
    assert order_spares({2, 3, 4}, SpareUse.NIC, ONE_NIC, HOST)[0] == 3


def test_the_attached_nic_itself_does_not_count() -> None:
    """A guest that is read with the device in it has as many NICs as before the attach."""
    attached = guest(nic(0), nic(None), targets={0: 0, 1: 1, 2: 2, 3: 30, 4: 3})
    assert order_spares({2, 3, 4}, SpareUse.NIC, attached, HOST, position=1)[0] == 3


def test_an_endpoint_goes_to_the_lowest_index_but_leaves_the_nics_spare() -> None:
    """As libvirt places host devices, never on vPHB 0 while there is another."""
    assert order_spares({0, 2, 3, 4}, SpareUse.ENDPOINT, ONE_NIC, HOST) == [2, 4, 3, 0]
    assert order_spares({0, 3}, SpareUse.ENDPOINT, ONE_NIC, HOST) == [3, 0]


def test_other_devices_leave_both_if_they_can() -> None:
    """A disk takes the spare of the next endpoint only before that of the next NIC, and vPHB 0 last."""
    assert order_spares({0, 2, 3, 4}, SpareUse.OTHER, ONE_NIC, HOST) == [4, 2, 3, 0]


def test_the_targets_of_nics_count_down_from_30() -> None:
    """The first has that of vPHB 0."""
    assert [nic_target(number) for number in range(4)] == [0, 30, 29, 28]
