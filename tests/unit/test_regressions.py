"""Definitions that generated ones led to, each of which was got wrong once."""

from __future__ import annotations

import pytest

from papr_hook import domainxml
from papr_hook.domainxml.write import write
from papr_hook.errors import LayoutError
from papr_hook.layout import check, compute
from papr_hook.model import Guest, HostTopology, PciAddress


def read(devices: str, commandline: str = "") -> tuple[domainxml.PseriesDomain, Guest]:
    """The guest with some devices, and no other that libvirt would add."""
    arguments = "".join(f"<qemu:arg value='{word}'/>" for word in commandline.split())
    found = domainxml.read(
        f"""\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <os><type arch='ppc64le' machine='pseries'>hvm</type></os>
  <devices>
    <memballoon model='none'/>
    {devices}
  </devices>
  <qemu:commandline>{arguments}</qemu:commandline>
</domain>
""".encode()
    )
    assert found.guest is not None
    return found, found.guest


def laid_out(devices: str, commandline: str = "") -> Guest:
    """What the layout of a guest is read as."""
    found, guest = read(devices, commandline)
    again = domainxml.read(write(found, compute.compute_layout(guest, 4, HostTopology())).data).guest
    assert again is not None
    return again


def places(guest: Guest) -> list[str]:
    return [str(device.address) for device in guest.devices]


def hostdevs(count: int, address: str = "") -> str:
    return "<controller type='usb' index='0' model='none'/>" + "".join(
        "<hostdev mode='subsystem' type='pci'><source>"
        f"<address domain='0' bus='{n // 32}' slot='{n % 32}' function='0'/></source>{address}</hostdev>"
        for n in range(count)
    )


DISK = "<disk type='block'><source dev='/d'/><target dev='vda' bus='virtio'/>{}</disk>"


def test_a_usb_2_set_leaves_the_slot_of_another_device() -> None:
    """The set's functions are 0 and 7, and the disk's is 0 too: together they had one address."""
    guest = laid_out(
        "<controller type='usb' index='0' model='ich9-ehci1'><address type='pci' slot='1' function='4'/></controller>"
        "<controller type='usb' index='0' model='ich9-uhci1'><address type='pci' slot='1' function='5'/></controller>"
        + DISK.format("<address type='pci' slot='1'/>"),
        "-device edu,bus=pci.0",
    )
    assert places(guest) == ["0000:01:01.7", "0000:01:01.0", "0000:02:01.0"]
    assert check.check(guest, 4, HostTopology()) == ()


def test_a_usb_2_controller_joins_another_that_has_its_function() -> None:
    guest = laid_out(
        "<controller type='pci' index='0' model='pci-root'><target index='0'/></controller>"
        "<controller type='pci' index='1' model='pci-root'><target index='1'/></controller>"
        "<controller type='usb' index='0' model='ich9-uhci1'>"
        "<address type='pci' bus='1' slot='1' function='7'/></controller>"
        "<controller type='usb' index='0' model='ich9-ehci1'/>"
    )
    assert places(guest) == ["0000:01:01.7", "0000:01:01.0"]


def test_too_many_endpoints_are_something_that_check_tells() -> None:
    _, guest = read(hostdevs(40) + DISK.format(""))
    assert not check.complies(check.check(guest, 4, HostTopology()))


def test_a_second_phb_0_is_refused() -> None:
    """QEMU would refuse it too; no layout is without it."""
    _, guest = read(DISK.format(""), "-device spapr-pci-host-bridge,index=0")
    with pytest.raises(LayoutError, match="index 0"):
        compute.compute_layout(guest, 4, HostTopology())


def test_the_id_of_a_vphb_on_the_commandline() -> None:
    """QEMU refuses a second pci.1; a layout that needs no more vPHBs than the id allows is made."""
    root = "<controller type='pci' index='{0}' model='pci-root'><target index='{0}'/></controller>"
    clash = "-device spapr-pci-host-bridge,index=29,id=pci.{}"
    _, guest = read(root.format(0) + root.format(1), clash.format(1))
    found = [str(one) for one in check.check(guest, 0, HostTopology()) if one.is_error]
    assert any("<controller> pci 1 needs the QEMU id pci.1" in text for text in found), found
    for number in (1, 4):
        _, guest = read(DISK.format(""), clash.format(number))
        with pytest.raises(LayoutError, match=rf"needs the QEMU id pci\.{number}"):
            compute.compute_layout(guest, 4, HostTopology())
    assert 29 not in {phb.target for phb in laid_out(DISK.format(""), clash.format(9)).phbs}


def test_an_endpoint_of_more_devices_than_slots_is_refused() -> None:
    _, guest = read(hostdevs(32))
    topology = HostTopology(iommu_groups={PciAddress(0, 0, n, 0): 1 for n in range(32)})
    with pytest.raises(LayoutError, match="more than 31 slots"):
        compute.compute_layout(guest, 4, topology)
