"""An attached device gets an address that every domain XML has room for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from papr_hook import hotplug, pipeline
from papr_hook.config import AttachWithoutSpare, Config, IncompletePe
from papr_hook.errors import InputError
from papr_hook.hotplug import Placement
from papr_hook.layout import check
from papr_hook.layout.attach import BlockedEndpointError, NeverLaidOutError, NoSpareError
from tests.helpers.domain_xml import at, disk, domain_xml, hostdev, nic
from tests.helpers.sysfs import GROUPS, TWO_PORT_NIC, write_host, write_sysfs


def place(device: str, *domain_xmls: bytes, settings: Config | None = None) -> Placement:
    """Place a device."""
    return hotplug.read_request(device.encode(), domain_xmls, settings or Config()).place()


def placed(device: str, *domain_xmls: bytes, settings: Config | None = None) -> tuple[int, int, int]:
    """Return the bus, slot and function that a device gets."""
    address = etree.fromstring(place(device, *domain_xmls, settings=settings).device).find("address")
    assert address is not None
    assert (address.get("type"), address.get("domain")) == ("pci", "0x0000")
    return tuple(int(address.get(name, ""), 16) for name in ("bus", "slot", "function"))  # type: ignore[return-value]


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    """The policy of a host with IOMMU groups."""
    return Config(sysfs=write_sysfs(tmp_path, GROUPS))


def test_empty_in_every_definition() -> None:
    """What is attached to the running guest and to its definition has one address in both."""
    live, config = domain_xml(nic(1, at(1))), domain_xml(nic(2, at(2)), running=False)
    assert placed(nic(9), live, config) == (4, 1, 0)


def test_sharing_if_the_host_wants_that(settings: Config) -> None:
    """attach_without_spare = share: an emulated device joins the least crowded vPHB of emulated ones."""
    share = dataclasses.replace(settings, attach_without_spare=AttachWithoutSpare.SHARE)
    full = nic(0, at(0)) + hostdev("0002:01:00.0", at(1)) + nic(2, at(2)) + nic(3, at(3))
    assert placed(nic(9), domain_xml(full, 4), settings=share) == (2, 2, 0)
    with pytest.raises(NoSpareError):
        placed(hostdev("0002:01:00.1"), domain_xml(full, 4), settings=share)


def test_endpoints_stay_together(settings: Config) -> None:
    """A device of an IOMMU group that is there joins it; one of another group does not."""
    there = domain_xml(nic(1, at(1)) + hostdev("0001:01:00.0", at(3)))
    assert placed(hostdev("0001:01:00.1"), there, settings=settings) == (3, 2, 0)
    assert placed(hostdev("0002:01:00.0"), there, settings=settings) == (2, 1, 0)
    two = domain_xml(hostdev("0001:01:00.0", at(3)) + hostdev("0001:01:00.1", at(3, 2)))
    assert placed(hostdev("0001:01:00.2"), two, settings=settings) == (3, 3, 0)


def test_endpoints_stay_together_in_both_domain_xmls(settings: Config) -> None:
    """A group that only one of the domain_xmls has decides for both, where the other one is empty there."""
    live, config = domain_xml(hostdev("0001:01:00.0", at(3))), domain_xml(running=False)
    assert placed(hostdev("0001:01:00.1"), live, config, settings=settings) == (3, 2, 0)
    occupied = domain_xml(nic(1, at(3)), running=False)
    with pytest.raises(NoSpareError, match="share their vPHB"):
        placed(hostdev("0001:01:00.1"), live, occupied, settings=settings)


def test_missing_members_of_an_endpoint_are_reported(settings: Config) -> None:
    """A host device is attached alone; the rest of its IOMMU group is reported until it is there."""
    first, second, third = (hostdev(f"0001:01:00.{function}") for function in (0, 1, 2))
    strict = dataclasses.replace(settings, incomplete_pe=IncompletePe.REFUSE)
    missing = place(first, domain_xml(), settings=strict).missing
    assert missing is not None
    assert "0001:01:00.1" in str(missing) and "0001:01:00.2" in str(missing)
    there = domain_xml("".join(hostdev(f"0001:01:00.{n}", at(1, n + 1)) for n in (0, 1)))
    assert place(third, there, settings=settings).missing is None
    assert place(second, domain_xml(), settings=Config(sysfs=settings.sysfs / "nowhere")).missing is None
    assert place(nic(9), domain_xml(), settings=settings).missing is None


def test_a_group_that_qemu_would_refuse(tmp_path: Path) -> None:
    """A member on a host driver is named with the command that frees it; the next start alone is no reason."""
    config = Config(sysfs=write_host(tmp_path, TWO_PORT_NIC))
    first = hostdev("0001:01:00.0")
    with pytest.raises(BlockedEndpointError) as caught:
        place(first, domain_xml(), settings=config)
    assert str(caught.value) == (
        "<hostdev> 0001:01:00.0 is in IOMMU group 5, but these members are not passed through: 0001:01:00.1 (driver "
        "e1000e), so QEMU cannot use the group: run 'virsh nodedev-detach pci_0001_01_00_1' first"
    )
    missing = place(first, domain_xml(running=False), settings=config).missing
    assert missing is not None and missing.text.endswith("(driver e1000e); attach these as well")


def test_usb_2_sets_stay_together() -> None:
    """A companion goes to the slot of its set, at the function that it has."""
    ehci = f"<controller type='usb' index='1' model='ich9-ehci1'>{at(2, 1, 7)}</controller>"
    device = "<controller type='usb' index='1' model='ich9-uhci1'/>"
    assert placed(device, domain_xml(ehci)) == (2, 1, 0)
    assert b"multifunction='on'" in place(device, domain_xml(ehci)).device


NOT_ON_PCI = [
    "<disk type='file' device='disk'><target dev='sdb' bus='scsi'/></disk>",
    "<hostdev mode='subsystem' type='usb'/>",
    "<interface type='user'><address type='spapr-vio'/></interface>",
    "<controller type='pci' model='pci-bridge'/>",
]


@pytest.mark.parametrize("device", NOT_ON_PCI)
def test_devices_that_are_not_on_pci(device: str) -> None:
    """A device that does not sit on PCI needs no address and stays as it is."""
    assert not hotplug.may_need_address(device.encode())
    assert place(device, domain_xml()) == Placement(device.encode())


def test_a_device_with_an_address_stays_as_it_is() -> None:
    """An address that the client chose is libvirt's to judge."""
    assert place(nic(9, at(2)), domain_xml()) == Placement(nic(9, at(2)).encode())


@pytest.mark.parametrize(
    "other",
    [
        domain_xml(extra="<metadata><p:layout xmlns:p='urn:papr-hook:domain:1' mode='keep'/></metadata>"),
        domain_xml().replace(b"ppc64", b"x86_64").replace(b"pseries", b"q35"),
        b"<domain type='qemu'/>",
    ],
)
def test_guests_that_are_not_laid_out(other: bytes) -> None:
    """A guest of another machine, and one that opted out, get the device as it is."""
    assert place(nic(9), domain_xml(), other) == Placement(nic(9).encode())


def test_a_guest_from_before() -> None:
    """A running guest that was never laid out is told apart: libvirt places the device then."""
    with pytest.raises(NeverLaidOutError, match="non-compliant layout"):
        place(nic(9), domain_xml(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1))


def test_each_domain_xml_is_analyzed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much the attach asks for, a domain XML is read one time."""
    analyzed = []
    analyze = pipeline.analyze

    def count(data: bytes, config: Config) -> pipeline.Analysis:
        analyzed.append(data)
        return analyze(data, config)

    monkeypatch.setattr(pipeline, "analyze", count)
    request = hotplug.read_request(nic(9).encode(), [domain_xml(), domain_xml(running=False)], Config())
    assert request.unread_networks == frozenset()
    assert request.place().place == "vPHB 0 slot 1"
    assert len(analyzed) == 2


def test_networks_that_hand_out_host_devices_isolate(settings: Config) -> None:
    """An interface on such a network is an endpoint, and joins nobody."""
    share = dataclasses.replace(settings, attach_without_spare=AttachWithoutSpare.SHARE)
    interface = "<interface type='network'><source network='vfs'/><model type='virtio'/></interface>"
    full = domain_xml(nic(1, at(0)), 1)
    request = hotplug.read_request(interface.encode(), [full], share)
    assert request.place().address is not None
    with pytest.raises(NoSpareError):
        request.place(frozenset({"vfs"}))


def test_reserved_vphbs_stay_empty() -> None:
    """A vPHB with a NUMA cell of its own, or with something of the qemu:commandline's, is nobody's spare."""
    bound = domain_xml().replace(b"<target index='1'/>", b"<target index='1'><node>0</node></target>")
    bound = bound.replace(b"<os>", b"<cpu><numa><cell id='0' cpus='0' memory='1'/></numa></cpu><os>")
    assert placed(disk("vdb"), bound) == (3, 1, 0)
    commandline = (
        "<c:commandline xmlns:c='http://libvirt.org/schemas/domain/qemu/1.0'><c:arg value='-device'/>"
        "<c:arg value='virtio-rng-pci,bus=pci.1.0'/></c:commandline>"
    )
    assert placed(disk("vdb"), domain_xml(extra=commandline)) == (3, 1, 0)


def test_an_empty_address_is_none() -> None:
    """libvirt takes 0000:00:00 as no address; the one that is there is filled in."""
    data = place(nic(9, "<address type='pci'/>"), domain_xml()).device
    assert data.count(b"<address") == 1
    assert b"bus='0x00'" in data


def test_only_the_address_is_added() -> None:
    """What else the XML says stays as it is written."""
    device = "<?xml version='1.0'?>\n<interface type='user'>\n  <!-- mine -->\n  <mtu size='9'/>\n</interface>\n"
    data = place(device, domain_xml()).device.decode()
    added = "  <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>\n"
    assert data == device.replace("</interface>", f"{added}</interface>")


@pytest.mark.parametrize("text", [b"", b"<interface", b"<a/><b/>", b"\xff\xfe", b"<interface>\0</interface>"])
def test_no_xml(text: bytes) -> None:
    """What is no XML is an error of the input."""
    with pytest.raises(InputError):
        hotplug.may_need_address(text)


@given(st.lists(st.integers(1, 11), unique=True), st.lists(st.integers(1, 11), unique=True))
def test_what_was_attached_complies(live: list[int], config: list[int]) -> None:
    """Whatever is where, a guest that complied does so with the device in it, in every definition."""
    domain_xmls = [
        domain_xml("".join(nic(n, at(n)) for n in there), 12, running)
        for there, running in ((live, True), (config, False))
    ]
    data = place(nic(99), *domain_xmls).device
    assert place(data.decode(), *domain_xmls).device == data
    for definition in domain_xmls:
        after = definition.replace(b"</devices>", data + b"</devices>")
        assert check.complies(pipeline.analyze(after, Config()).violations())


def keep(device: str, *domain_xmls: bytes) -> bytes:
    """Return the device XML of an update."""
    return hotplug.keep_address(device.encode(), domain_xmls, Config())


def test_an_update_keeps_the_address() -> None:
    """A disk is known by its target, a NIC by its MAC, other devices by their alias."""
    config = domain_xml(nic(1, at(3)) + nic(2, at(4)) + disk("vda", at(2, 5)), running=False)
    assert b"bus='0x02' slot='0x05'" in keep(disk("vda"), config)
    assert b"bus='0x04'" in keep(nic(2), config)
    alias = "<alias name='ua-x'/>"
    rng = f"<rng model='virtio'><backend model='random'>/dev/random</backend>{alias}</rng>"
    there = domain_xml(rng.replace("</rng>", at(1) + "</rng>"), running=False)
    assert b"bus='0x01'" in keep(rng, there)


def test_an_update_keeps_a_slot_of_several_functions() -> None:
    """The attribute that makes the other functions visible goes along."""
    config = domain_xml(nic(1, at(3, 1, 0, " multifunction='on'")) + nic(2, at(3, 1, 1)), running=False)
    assert b"multifunction='on'" in keep(nic(1), config)
    assert b"function='0x1'" in keep(nic(2), config)


def test_updates_that_stay_as_they_are() -> None:
    """One of the running guest alone, one with an address, and one of a device that is not there."""
    running = domain_xml(nic(1, at(3)))
    assert keep(nic(1), running) == nic(1).encode()
    config = domain_xml(nic(1, at(3)), running=False)
    assert keep(nic(1, at(2)), config) == nic(1, at(2)).encode()
    assert keep(nic(2), config) == nic(2).encode()
    assert keep(nic(1), domain_xml(nic(1, at(4))), config) == nic(1).encode()
    x86 = config.replace(b"ppc64", b"x86_64").replace(b"pseries", b"q35")
    assert keep(nic(1), x86) == nic(1).encode()


def test_an_update_of_both_domain_xmls() -> None:
    """The address is written if the running guest has the device there too."""
    assert b"bus='0x03'" in keep(nic(1), domain_xml(nic(1, at(3))), domain_xml(nic(1, at(3)), running=False))


def test_an_update_that_moves_a_disk_to_pci() -> None:
    """A disk that becomes a virtio disk needs an address of its own."""
    scsi = "<disk type='file'><source file='/x'/><target dev='sda' bus='scsi'/></disk>"
    virtio = scsi.replace("bus='scsi'", "bus='virtio'")
    config = domain_xml(nic(1, at(1)) + scsi + "<controller type='scsi' index='0' model='ibmvscsi'/>", running=False)
    assert b"bus='0x03'" in keep(virtio, config)
