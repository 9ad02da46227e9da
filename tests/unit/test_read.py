"""Domain XML to a guest."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from papr_hook import domainxml
from papr_hook.errors import InputError
from papr_hook.model import Guest, PciAddress

HEAD = (
    "<domain type='{kind}' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>"
    "<os><type {os}>hvm</type></os><devices>{devices}</devices>{after}</domain>"
)
PSERIES = "arch='ppc64le' machine='pseries'"


def document(devices: str, after: str = "", kind: str = "kvm", os: str = PSERIES) -> bytes:
    return HEAD.format(kind=kind, os=os, devices=devices, after=after).encode()


def read(devices: str, after: str = "") -> Guest:
    found = domainxml.read(document(devices, after))
    assert isinstance(found, domainxml.PseriesDomain)
    return found.guest


@pytest.mark.parametrize(
    ("kind", "os", "host", "pseries"),
    [
        ("kvm", PSERIES, "x86_64", True),
        ("qemu", "machine='pseries-9.2'", "x86_64", True),
        ("qemu", "arch='ppc64'", "x86_64", True),
        ("kvm", "", "ppc64le", True),
        ("kvm", "", "x86_64", False),
        ("xen", PSERIES, "ppc64le", False),
        ("kvm", "arch='ppc64' machine='powernv9'", "ppc64le", False),
        ("kvm", "arch='x86_64' machine='pseries'", "ppc64le", False),
    ],
)
def test_which_guests_are_pseries(kind: str, os: str, host: str, pseries: bool) -> None:
    found = domainxml.read(document("", kind=kind, os=os), host)
    assert isinstance(found, domainxml.PseriesDomain if pseries else domainxml.OtherDomain)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("<disk><target dev='vda' bus='virtio'/></disk>", "<disk> vda"),
        ("<filesystem><target dir='share'/></filesystem>", "<filesystem> share"),
        ("<interface type='user'><mac address='52:54:00:00:00:01'/></interface>", "<interface> 52:54:00:00:00:01"),
        ("<interface type='user'><alias name='ua-n'/></interface>", "<interface> ua-n"),
        ("<interface type='user'/>", "<interface> #1"),
        ("<controller type='scsi' index='3' model='virtio-scsi'/>", "<controller> scsi 3"),
        ("<video><model type='vga'/></video>", "<video> vga"),
        ("<rng model='virtio'/>", "<rng> virtio"),
        (
            "<hostdev mode='subsystem' type='pci'><source><address domain='1' bus='2' slot='3'/></source></hostdev>",
            "<hostdev> 0001:02:03.0",
        ),
        ("<filesystem><target dir='" + "x" * 99 + "'/></filesystem>", "<filesystem> " + "x" * 40 + "..."),
    ],
)
def test_names_in_messages(device: str, name: str) -> None:
    assert read(device).devices[0].name == name


def test_which_of_its_kind() -> None:
    rng = "<rng><backend model='random'/></rng>"
    assert [device.name for device in read(rng + "<disk/>" + rng).devices[:2]] == ["<rng> #1", "<rng> #2"]


def test_an_empty_address_is_none() -> None:
    """libvirt treats domain, bus and slot 0 as no address, whatever the function."""
    guest = read("<rng><address type='pci' function='1'/></rng><rng><address type='pci' slot='1'/></rng>")
    assert [device.address for device in guest.devices[:2]] == [None, PciAddress(slot=1)]


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ("<rng><address type='pci' slot='1'/></rng>" * 2, "is at 0000:00:01.0, and so is <rng> #1"),
        ("<controller type='pci' index='0'/>", "has no model"),
        (f"<controller type='pci' model='pci-root'><target><node>{'9' * 5000}</node></target></controller>", "NUMA"),
    ],
)  # fmt: skip
def test_refused(devices: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(devices)


def calls(data: bytes) -> int:
    """Return how many Python functions and generator steps reading takes."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        domainxml.read(data)
    finally:
        sys.setprofile(None)
    return count


DEVICE = "<q:arg value='-device'/><q:arg value='{}'/>"
MANY = {
    "arguments": ("", DEVICE.format("spapr-pci-host-bridge,index=3") + DEVICE.format("edu,bus=pci.3.0")),
    "scsi controllers": ("<controller type='scsi' model='virtio-scsi'/>", ""),
    "usb controllers": ("<controller type='usb' model='ich9-uhci1'/><controller type='usb' model='ich9-ehci1'/>", ""),
    "pci controllers": ("<controller type='pci' model='pci-root'/>", ""),
    "channels": ("<channel type='unix'><target type='virtio'/></channel>", ""),
    "scsi host devices": ("<hostdev mode='subsystem' type='scsi'><source/></hostdev>", ""),
    "devices without a name": ("<rng><backend model='random'/></rng>", ""),
    "disks": ("<disk><target dev='vda' bus='virtio'/></disk>", ""),
}


@pytest.mark.parametrize("name", MANY)
def test_work_grows_with_the_length(name: str) -> None:
    """Twice as many elements are twice the work: some steps were quadratic, and held a start for 26 s."""
    device, argument = MANY[name]

    def many(count: int) -> bytes:
        return document(device * count, f"<q:commandline>{argument * count}</q:commandline>")

    assert calls(many(400)) < 2.2 * calls(many(200))


def test_a_descending_list_of_controllers() -> None:
    """libvirt inserts each before the others; that takes no longer here."""

    def many(count: int) -> bytes:
        return document("".join(f"<controller type='scsi' index='{n}' model='auto'/>" for n in range(count, 0, -1)))

    assert calls(many(400)) < 2.2 * calls(many(200))
