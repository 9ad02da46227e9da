"""A layout, written into domain XML."""

from __future__ import annotations

from papr_hook import domainxml
from papr_hook.domainxml.read import PseriesDomain
from papr_hook.domainxml.write import with_address, with_hostdevs, write
from papr_hook.layout.compute import compute_layout
from papr_hook.model import HostTopology, PciAddress
from tests.helpers.paths import GOLDEN

DISK = b"<disk type='file'>\n  <target dev='vdb' bus='virtio'/>\n</disk>\n"


def read(name: str) -> PseriesDomain:
    """Return a golden domain XML."""
    found = domainxml.read((GOLDEN / name).read_bytes())
    assert isinstance(found, PseriesDomain)
    return found


def test_a_layout_that_is_there_changes_no_byte() -> None:
    domain = read("complies-in.xml")
    assert write(domain, compute_layout(domain.guest, 4, HostTopology())).data == domain.data


def test_an_address_is_one_line_more() -> None:
    """Its indentation and quotes are those of the device XML."""
    lines = with_address(DISK, PciAddress(bus=3, slot=1), shared=False).data.splitlines(keepends=True)
    (added,) = [line for line in lines if line not in DISK.splitlines(keepends=True)]
    assert added == b"  <address type='pci' domain='0x0000' bus='0x03' slot='0x01' function='0x0'/>\n"


def test_function_0_of_a_shared_slot_says_so() -> None:
    assert b"multifunction='on'" in with_address(DISK, PciAddress(bus=3, slot=1), shared=True).data
    assert b"multifunction" not in with_address(DISK, PciAddress(bus=3, slot=1, function=1), shared=True).data


def test_further_host_devices_are_managed() -> None:
    """They come after the device that they belong to."""
    domain = read("pc-shaped-in.xml")
    before = domain.data.count(b"<hostdev")
    made = with_hostdevs(domain, [(0, PciAddress(1, 1, 0, 1))]).data
    assert made.count(b"<hostdev") == before + 1
    assert b"managed='yes'" in made
    found = domainxml.read(made).guest
    assert found is not None
    assert PciAddress(1, 1, 0, 1) in {device.source for device in found.devices}
