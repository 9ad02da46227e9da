"""The order in which devices without a place get one, and the target indexes that they get."""

from __future__ import annotations

from papr_hook import domainxml
from papr_hook.layout.compute import compute_layout
from papr_hook.model import Guest, HostTopology, PciAddress

HOST = HostTopology(hostdev_networks=frozenset({"sriov"}))

NIC = "<interface type='user'><mac address='52:54:00:00:00:0{}'/></interface>"
HOSTDEV = "<hostdev mode='subsystem' type='pci'><source><address bus='1' slot='{}'/></source></hostdev>"
HOSTDEV_NIC = (
    "<interface type='hostdev'><mac address='52:54:00:00:01:0{0}'/>"
    "<source><address type='pci' bus='2' slot='{0}'/></source></interface>"
)
NETWORK_NIC = "<interface type='network'><mac address='52:54:00:00:02:01'/><source network='sriov'/></interface>"
DISK = "<disk><target dev='{}' bus='virtio'/></disk>"


def read(*devices: str) -> Guest:
    """A guest with some devices, and none that libvirt would add."""
    found = domainxml.read(
        (
            "<domain type='kvm'><name>g</name><os><type arch='ppc64le' machine='pseries'>hvm</type></os><devices>"
            f"<controller type='usb' model='none'/><memballoon model='none'/>{''.join(devices)}</devices></domain>"
        ).encode()
    ).guest
    assert found is not None
    return found


def lay_out(*devices: str) -> dict[str, tuple[int, int]]:
    """The vPHB of each device, and its target index."""
    guest = read(*devices)
    layout = compute_layout(guest, 4, HOST)
    return {
        device.name: (address.bus, layout.phbs[address.bus].target or 0)
        for device, address in zip(guest.devices, layout.addresses)
    }


def test_endpoints_are_where_libvirt_alone_puts_them() -> None:
    """NICs of hostdev networks, then interfaces of type hostdev, then hostdevs, on vPHBs from 1."""
    places = lay_out(HOSTDEV.format(1), DISK.format("vda"), HOSTDEV_NIC.format(1), NIC.format(1), NETWORK_NIC)
    assert places == {
        "<interface> 52:54:00:00:00:01": (0, 0),
        "<interface> 52:54:00:00:02:01": (1, 1),
        "<interface> 52:54:00:00:01:01": (2, 2),
        "<hostdev> 0000:01:01.0": (3, 3),
        "<disk> vda": (4, 4),
    }


def test_further_nics_count_down_from_target_30() -> None:
    """Neither disks nor host devices change the target index of a NIC."""
    few = lay_out(NIC.format(1), NIC.format(2), NIC.format(3))
    many = lay_out(
        DISK.format("vda"), HOSTDEV.format(1), NIC.format(1), HOSTDEV.format(2), NIC.format(2), NIC.format(3)
    )
    for number, target in ((1, 0), (2, 30), (3, 29)):
        name = f"<interface> 52:54:00:00:00:0{number}"
        assert few[name][1] == many[name][1] == target


def test_the_rest_goes_by_kind_and_disks_by_target() -> None:
    """As libvirt places devices without addresses, whatever the order of the domain XML."""
    devices = [
        "<rng model='virtio'/>",
        DISK.format("vdb"),
        DISK.format("vda"),
        "<controller type='scsi' model='virtio-scsi' index='0'/>",
        "<crypto model='virtio'/>",
        "<filesystem><source dir='/a'/><target dir='b'/></filesystem>",
        "<sound model='ich6'/>",
        "<video><model type='vga'/></video>",
    ]
    expected = ["filesystem", "sound", "controller", "disk> vda", "disk> vdb", "rng", "video", "crypto"]
    for order in (devices, devices[::-1]):
        by_bus = sorted((place, name) for name, place in lay_out(*order).items())
        assert [any(name.startswith(f"<{start}") for _, name in [pair]) for pair, start in zip(by_bus, expected)] == [
            True
        ] * len(expected)


def test_one_spare_has_the_target_of_the_next_nic() -> None:
    """The others have the lowest unused target indexes."""
    layout = compute_layout(read(NIC.format(1), NIC.format(2), DISK.format("vda")), 4, HOST)
    assert [phb.target for phb in layout.phbs] == [0, 30, 1, 2, 3, 4, 29]


def test_slots_of_an_endpoint_ascend_in_host_function_order() -> None:
    """Whatever the order of the domain XML; each function has a slot, so that libvirt can detach it."""
    functions = [
        f"<hostdev mode='subsystem' type='pci'><source><address bus='1' slot='0' function='{n}'/></source></hostdev>"
        for n in (2, 0, 3, 1)
    ]
    host = HostTopology(iommu_groups={PciAddress(0, 1, 0, n): 7 for n in range(4)})
    guest = read(*functions)
    layout = compute_layout(guest, 4, host)
    slots = {device.source: address for device, address in zip(guest.devices, layout.addresses)}
    assert slots == {PciAddress(0, 1, 0, n): PciAddress(bus=1, slot=n + 1) for n in range(4)}


def test_a_function_that_joins_later_comes_after_those_before_it() -> None:
    """The slots of the functions that have one stay."""
    placed = (
        "<hostdev mode='subsystem' type='pci'><source><address bus='1' slot='0' function='0'/></source>"
        "<address type='pci' bus='1' slot='4'/></hostdev>"
    )
    other = "<hostdev mode='subsystem' type='pci'><source><address bus='1' slot='0' function='1'/></source></hostdev>"
    host = HostTopology(iommu_groups={PciAddress(0, 1, 0, n): 7 for n in range(2)})
    layout = compute_layout(read(other, placed), 4, host)
    assert layout.addresses == (PciAddress(bus=1, slot=5), PciAddress(bus=1, slot=4))
