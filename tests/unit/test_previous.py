"""Devices that go back to where an earlier domain XML had them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.layout.compute import compute_layout
from papr_hook.model import Guest, HostTopology, PciAddress

HOST = HostTopology()
ROOT_PORT = (
    "<controller type='pci' index='2' model='pcie-root-port'><address type='pci' bus='1' slot='2'/></controller>"
)


def root(index: int, target: int | None = None, inside: str = "") -> str:
    """A vPHB."""
    number = index if target is None else target
    head = f"<controller type='pci' index='{index}' model='pci-root'>"
    return f"{head}<target index='{number}'>{inside}</target></controller>"


def at(bus: int, slot: int = 1, function: int = 0) -> str:
    return f"<address type='pci' bus='{bus}' slot='{slot}' function='{function}'/>"


def nic(number: int, address: str = "", mac: bool = True) -> str:
    known = f"<mac address='52:54:00:00:00:{number:02x}'/>" if mac else ""
    return f"<interface type='user'>{known}{address}</interface>"


def disk(name: str, address: str = "") -> str:
    return f"<disk><target dev='{name}' bus='virtio'/>{address}</disk>"


def xml(*devices: str, extra: str = "") -> bytes:
    """Domain XML with some devices, and none that libvirt would add."""
    return (
        f"<domain type='kvm'><name>g</name>{extra}<os><type arch='ppc64le' machine='pseries'>hvm</type></os><devices>"
        f"<controller type='usb' model='none'/><memballoon model='none'/>{''.join(devices)}</devices></domain>"
    ).encode()


def read(data: bytes) -> Guest:
    guest = domainxml.read(data).guest
    assert guest is not None
    return guest


def places(new: bytes, *old: bytes) -> dict[str, str]:
    """The target index, slot and function of each device, as the guest sees them."""
    guest = read(new)
    layout = compute_layout(guest, 4, HOST, [read(data) for data in old])
    return {
        device.name.split()[1][-3:]: f"{layout.phbs[at.bus].target}:{at.slot}.{at.function}"
        for device, at in zip(guest.devices, layout.addresses)
    }


def test_devices_go_back_to_their_vphb_and_slot() -> None:
    """By MAC and by target, with a new disk before them."""
    old = xml(*map(root, range(8)), nic(1, at(3)), nic(2, at(5, 2)), disk("vda", at(4)))
    assert places(xml(disk("vda"), disk("vdb"), nic(2), nic(1)), old) == {
        "vda": "4:1.0",
        "vdb": "1:1.0",
        ":02": "5:2.0",
        ":01": "3:1.0",
    }


def test_a_new_nic_gets_vphb_0_if_it_is_free() -> None:
    """It is the first without a place; a NIC that goes back elsewhere is not."""
    old = xml(*map(root, range(8)), nic(1, at(3)))
    assert places(xml(nic(1), nic(2)), old) == {":01": "3:1.0", ":02": "0:1.0"}


def test_the_nic_that_had_vphb_0_keeps_it() -> None:
    """Even if it shared vPHB 0 with other devices, as libvirt alone lays out."""
    old = xml(root(0), nic(1, at(0, 4)), nic(2, at(0, 5)), disk("vda", at(0, 6)))
    assert places(xml(nic(2), nic(1), disk("vda")), old) == {":02": "30:1.0", ":01": "0:4.0", "vda": "1:1.0"}


def test_new_macs_inherit_nothing() -> None:
    """A clone has other NICs."""
    old = xml(*map(root, range(8)), nic(1, at(3)), nic(2, at(5)))
    assert places(xml(nic(3), nic(4)), old) == {":03": "0:1.0", ":04": "30:1.0"}


def test_nics_without_a_mac_go_by_their_place() -> None:
    """libvirt gives them another MAC each time; one with a known MAC is not among them."""
    old = xml(*map(root, range(8)), nic(1, at(3)), nic(2, at(5)), nic(3, at(6)))
    guest = read(xml(nic(0, mac=False), nic(2), nic(0, mac=False)))
    layout = compute_layout(guest, 4, HOST, [read(old)])
    assert [address.bus for address in layout.addresses] == [3, 5, 6]


def test_a_mac_that_occurs_twice_is_no_key() -> None:
    """Both go by their place."""
    old = xml(*map(root, range(8)), nic(1, at(3)), nic(1, at(5)))
    guest = read(xml(nic(1), nic(1)))
    layout = compute_layout(guest, 4, HOST, [read(old)])
    assert [address.bus for address in layout.addresses] == [3, 5]


def test_an_own_address_counts_more() -> None:
    """The device whose vPHB is taken goes elsewhere."""
    old = xml(*map(root, range(8)), nic(1, at(3)), disk("vda", at(4)))
    new = xml(*map(root, range(8)), nic(1, at(4)), disk("vda"))
    assert places(new, old) == {":01": "4:1.0", "vda": "1:1.0"}


def test_the_target_index_counts_more_than_the_index() -> None:
    """If the domain XML gives the index another target index, the vPHB with the remembered one is used."""
    old = xml(root(0), root(1, 30), root(2), nic(1, at(2)), nic(2, at(1)))
    new = xml(root(0), root(1), root(2, 30), nic(1), nic(2))
    guest = read(new)
    layout = compute_layout(guest, 4, HOST, [read(old)])
    assert [(at.bus, layout.phbs[at.bus].target) for at in layout.addresses] == [(0, 0), (2, 30)]


@pytest.mark.parametrize(
    "old",
    [
        xml(root(0), root(1), nic(1, at(1)), disk("vda", at(1, 2))),
        xml(root(0), "<controller type='pci' index='1' model='pci-bridge'/>", nic(1, at(1))),
        xml(
            root(0),
            root(1),
            ROOT_PORT,
            nic(1, at(1)),
        ),
        xml(nic(1)),
    ],
    ids=["shared", "behind-a-bridge", "beside-a-bridge", "without-addresses"],
)
def test_what_was_not_alone_is_not_remembered(old: bytes) -> None:
    """The NIC gets vPHB 0, as without an earlier domain XML."""
    assert places(xml(nic(1)), old) == {":01": "0:1.0"}


def test_a_reserved_bus_is_not_given_back() -> None:
    """reserve in the new domain XML counts more."""
    old = xml(*map(root, range(5)), nic(1, at(3)))
    reserve = "<metadata><p:layout xmlns:p='urn:papr-hook:domain:1' reserve='3'/></metadata>"
    assert places(xml(nic(1), extra=reserve), old) == {":01": "0:1.0"}


def test_what_the_first_lacks_comes_from_the_second() -> None:
    """The live domain XML of a guest has the devices that were attached to it."""
    persistent = xml(*map(root, range(8)), nic(1, at(3)), disk("vda", at(4)))
    live = xml(*map(root, range(8)), nic(1, at(5)), nic(2, at(6)))
    assert places(xml(nic(1), nic(2)), persistent, live) == {":01": "3:1.0", ":02": "6:1.0"}


def test_other_kinds_go_by_their_place() -> None:
    """The second rng is the second; a user-defined alias counts more."""
    rng = "<rng model='virtio'>{}</rng>"
    old = xml(*map(root, range(9)), rng.format(at(5)), rng.format(at(6)), rng.format("<alias name='ua-r'/>" + at(7)))
    guest = read(xml(rng.format("<alias name='ua-r'/>"), rng.format(""), rng.format("")))
    layout = compute_layout(guest, 4, HOST, [read(old)])
    assert layout.addresses == tuple(PciAddress(bus=bus, slot=1) for bus in (7, 5, 6))


@pytest.mark.parametrize(
    "garbage",
    [b"", b"<domain", b"\xff\xfe", b"<network/>", xml(nic(1, at(3)), nic(2, at(3))), b"<domain type='kvm'/>"],
)
def test_garbage_is_ignored(garbage: bytes) -> None:
    """An earlier domain XML is never a reason to fail."""
    analysis = pipeline.analyze(xml(nic(1), disk("vda")), Config())
    assert analysis.apply_layout(garbage).data == analysis.apply_layout().data


def test_it_is_not_read_if_no_device_lacks_a_place() -> None:
    """The pipeline says so, and callers do not ask for it."""
    done = pipeline.analyze(xml(nic(1), disk("vda")), Config()).apply_layout()
    analysis = pipeline.analyze(done.data, Config())
    assert not analysis.lacks_place
    assert not analysis.apply_layout(xml(*map(root, range(8)), nic(1, at(3)))).changed
    assert pipeline.analyze(xml(nic(1)), Config()).lacks_place


def test_where_devices_share_only_the_nic_of_vphb_0_goes_back() -> None:
    """A NIC that was elsewhere would make others share; it gets vPHB 0, and keeps it from then on."""
    names = [f"vd{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(31)]
    crowded = read(xml(*map(disk, names), nic(1)))
    before = read(xml(*map(root, range(8)), nic(1, at(5))))
    first = compute_layout(crowded, 4, HOST, [before])
    assert first.addresses[-1] == PciAddress(bus=0, slot=1)
    devices = (replace(device, address=place) for device, place in zip(crowded.devices, first.addresses))
    laid_out = replace(crowded, phbs=first.phbs, devices=tuple(devices))
    assert compute_layout(crowded, 4, HOST, [laid_out]).addresses == first.addresses
