"""The address of an attached device, from guests without XML."""

from __future__ import annotations

from dataclasses import replace

import pytest

from papr_hook.layout.attach import AttachView, NeverLaidOutError, NoSpareError, assign_address
from papr_hook.model import Device, Guest, HostTopology, PciAddress, Phb


def view(*buses: int, phbs: int = 5, running: bool = True) -> AttachView:
    """Return a guest with a device on each of some buses, and one to place."""
    slots: dict[int, int] = {}
    devices: list[Device] = []
    for bus in buses:
        slots[bus] = slots.get(bus, 0) + 1
        devices.append(Device(f"<disk> {len(devices)}", address=PciAddress(bus=bus, slot=slots[bus])))
    roots = tuple(Phb(index, target=index) for index in range(phbs))
    guest = Guest("g", phbs=roots, devices=(*devices, Device("<disk> new")))
    return AttachView(guest, len(devices), HostTopology(), running)


def place(*views: AttachView, share: bool = False) -> tuple[int, int]:
    """Return the bus and slot of the device."""
    address = assign_address(views, share)
    assert (address.domain, address.function) == (0, 0)
    return address.bus, address.slot


def test_a_disk_leaves_the_spares_of_others() -> None:
    """It takes that of the next endpoint only if there is no other, and vPHB 0 last."""
    assert place(view()) == (2, 1)
    assert place(view(2, 3, 4)) == (1, 1)
    assert place(view(1, 2, 3, 4)) == (0, 1)


def test_the_first_nic_goes_to_vphb_0_and_the_next_to_its_target_index() -> None:
    """So it has the name in the guest that it would have in a domain XML that is defined with it."""
    first = Device("<interface> 1", kind="interface")
    second = replace(first, name="<interface> 2")
    roots = (Phb(0, 0), Phb(1, 1), Phb(2, 2), Phb(3, 30), Phb(4, 4))
    none = AttachView(Guest("g", phbs=roots, devices=(first,)), 0, HostTopology(), True)
    assert place(none) == (0, 1)
    devices = (replace(first, address=PciAddress(bus=0, slot=1)), second)
    one = AttachView(Guest("g", phbs=roots, devices=devices), 1, HostTopology(), True)
    assert place(one) == (3, 1)


def test_an_endpoint_goes_to_the_lowest_vphb_but_0() -> None:
    """As libvirt places host devices."""
    endpoint = Device("<hostdev> 1", kind="hostdev pci", passthrough=True)
    roots = tuple(Phb(index, index) for index in range(3))
    assert place(AttachView(Guest("g", phbs=roots, devices=(endpoint,)), 0, HostTopology(), True)) == (1, 1)


def test_the_next_start_gets_further_vphbs() -> None:
    """libvirt adds pci-roots to a domain XML that does not run, up to 31, and none to a running guest."""
    assert place(view(1, 2, 3, 4, running=False)) == (6, 1)
    assert place(view(1, 2, 3, 4, phbs=9), view(1, 2, 3, 4, running=False)) == (6, 1)
    with pytest.raises(NoSpareError, match="no empty vPHB"):
        place(view(*range(31), phbs=31, running=False))


def test_the_next_start_gets_no_vphb_with_an_id_of_the_commandline() -> None:
    """libvirt would add all vPHBs up to the device's, and QEMU would refuse the one whose id is taken."""
    full = view(*range(5), running=False)
    clashing = replace(full, guest=replace(full.guest, commandline_indexes=frozenset({0, 6})))
    assert place(clashing) == (5, 1)
    with pytest.raises(NoSpareError, match="no empty vPHB"):
        place(replace(full, guest=replace(full.guest, commandline_indexes=frozenset({5}))))


def test_without_a_spare_the_message_says_what_to_do() -> None:
    """It names the device and two remedies."""
    with pytest.raises(NoSpareError) as caught:
        place(view(0, 1, 2, 3, 4))
    assert str(caught.value) == (
        "no empty vPHB is left for <disk> new; detach another device, or restart the guest to get new spares"
    )


def test_sharing_is_even_and_works_again_and_again() -> None:
    """A rule that the first shared attach broke with leave is no reason to refuse the second."""
    assert place(view(0, 1, 2), phbs_of(3, 0, 1, 2), share=True) == (1, 2)
    assert place(phbs_of(3, 0, 1, 1, 2), share=True) == (2, 2)
    assert place(phbs_of(3, 0, 1, 1, 2, 2), share=True) == (0, 2)


def phbs_of(phbs: int, *buses: int) -> AttachView:
    """Return a running guest with so many vPHBs."""
    return view(*buses, phbs=phbs)


def test_sharing_in_a_guest_that_was_never_laid_out() -> None:
    """There the device joins those on the least loaded vPHB, as libvirt would let it."""
    crowded = view(0, 0, 0, phbs=1)
    assert place(crowded, share=True) == (0, 4)
    with pytest.raises(NeverLaidOutError):
        place(crowded)
