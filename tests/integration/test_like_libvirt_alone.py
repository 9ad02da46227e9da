"""The first emulated NIC and the host devices are where libvirt alone puts them.

Each domain XML is defined twice, as it is and laid out. The host's PCI devices and IOMMU groups are faked.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import libvirt
import pytest
from hypothesis import given, settings

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.errors import InputError, LayoutError
from papr_hook.model import Device, Guest, PciAddress
from tests.harness.libvirt_host import Host
from tests.helpers.generate import Case, cases
from tests.helpers.libvirt_view import without_kvm
from tests.helpers.paths import CORPUS, GOLDEN, NO_CORPUS
from tests.helpers.sysfs import GROUPS, write_sysfs


class FakedHost:
    """A libvirt host whose PCI devices are what a test writes."""

    def __init__(self, host: Host, tree: Path) -> None:
        self.tree = tree
        (tree / "bus/pci/devices").mkdir(parents=True)
        host.run(["mount", "--bind", str(tree / "bus/pci"), "/sys/bus/pci"])
        self.connection = libvirt.open(host.uri)

    def show(self, groups: Mapping[PciAddress, int]) -> None:
        """Replace all PCI devices."""
        for name in ("devices", "kernel"):
            shutil.rmtree(self.tree / name, ignore_errors=True)
        for link in (self.tree / "bus/pci/devices").iterdir():
            link.unlink()
        write_sysfs(self.tree, {str(address): group for address, group in groups.items()})

    def define(self, xml: bytes) -> Guest:
        """Return what libvirt makes of domain XML. Raises libvirt.libvirtError."""
        defined = self.connection.defineXMLFlags(xml.decode(), 0)
        try:
            dumped = defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        finally:
            defined.undefine()
        guest = domainxml.read(dumped.encode()).guest
        assert guest is not None
        return guest


@pytest.fixture(scope="module")
def faked(root: Path, capability_cache: Path) -> Iterator[FakedHost]:
    """Start a host with faked PCI devices."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    tree = root / "sysfs"
    with Host(root, "faked", capability_cache) as host:
        faked = FakedHost(host, tree)
        yield faked
        faked.connection.close()
    shutil.rmtree(tree)


def own_groups(xml: bytes) -> dict[PciAddress, int]:
    """Return an IOMMU group for each slot of the host devices in domain XML: that of the golden pairs, or a new one."""
    guest = domainxml.read(xml).guest
    sources = [device.source for device in guest.devices if device.source is not None] if guest is not None else []
    slots = sorted({(source.domain, source.bus, source.slot) for source in sources})
    return {s: GROUPS.get(str(s), 100 + slots.index((s.domain, s.bus, s.slot))) for s in sources}


def place(guest: Guest, device: Device) -> tuple[int | None, PciAddress | None]:
    """Return the target index and the address of a device."""
    address = device.address
    return (next((p.target for p in guest.phbs if address and p.index == address.bus), None), address)


def owner(nics: list[Device], guest: Guest) -> int | None:
    """Return the position of the NIC that vPHB 0 belongs to, or None if libvirt alone keeps it off PHB 0."""
    bridged = {bridge.index for bridge in guest.bridges}
    emulated = [number for number, nic in enumerate(nics) if not nic.passthrough]
    on_bus_0 = [n for n in emulated if (at := nics[n].address) is not None and at.bus == 0]
    without = [n for n in emulated if (at := nics[n].address) is None or at.bus in bridged]
    first = next(iter(on_bus_0 or without), None)
    return None if first is None or (nics[first].address is not None and not on_bus_0) else first


def check(faked: FakedHost, xml: bytes, groups: Mapping[PciAddress, int]) -> bool:
    """Define domain XML as it is and laid out, compare, and return whether libvirt takes both."""
    faked.show(groups)
    analysis = pipeline.analyze(xml, Config(sysfs=faked.tree))
    result = analysis.apply_layout()
    before = domainxml.read(xml).guest
    if result.layout is None or before is None:
        return False
    try:
        alone, through = faked.define(xml), faked.define(result.data)
    except libvirt.libvirtError:
        return False
    nics = [[d for d in guest.devices if d.is_interface] for guest in (before, alone, through)]
    first = owner(nics[0], before)
    moved_there = any(
        was.address is not None and was.address.bus != 0 and now.address is not None and now.address.bus == 0
        for was, now in zip(nics[0], nics[2])
    )
    if first is not None and not moved_there:
        assert place(through, nics[2][first]) == place(alone, nics[1][first])
    for one, other in zip(host_devices(alone), host_devices(through)):
        if exclusive(alone, one, groups):
            assert (other.address and other.address.bus) == (one.address and one.address.bus), one
    return True


def host_devices(guest: Guest) -> list[Device]:
    """Return the passed-through devices, those in <interface> first."""
    found = [device for device in guest.devices if device.source is not None]
    return sorted(found, key=lambda device: not device.is_interface)


def exclusive(guest: Guest, device: Device, groups: Mapping[PciAddress, int]) -> bool:
    """Return whether a host device's IOMMU group is on one vPHB, alone."""
    if device.source is None or device.source not in groups or device.address is None:
        return False
    beside = [d for d in guest.devices if d.address is not None and d.address.bus == device.address.bus]
    members = [d for d in guest.devices if d.source is not None and groups.get(d.source) == groups[device.source]]
    return sorted(map(str, beside)) == sorted(map(str, members))


OTHER_MACHINES = {"x86-in.xml", "powernv-in.xml"}
FILES = sorted(file for file in GOLDEN.glob("*-in.xml") if file.name not in OTHER_MACHINES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden(faked: FakedHost, file: Path) -> None:
    """Each golden pair."""
    xml = without_kvm(file.read_bytes())
    with contextlib.suppress(LayoutError):
        check(faked, xml, own_groups(xml))


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"{NO_CORPUS} in {CORPUS}")
@pytest.mark.parametrize("file", sorted((CORPUS / "pseries").glob("*.xml")), ids=lambda file: file.stem)
def test_corpus(faked: FakedHost, file: Path) -> None:
    """Each domain XML of other projects."""
    xml = without_kvm(file.read_bytes())
    with contextlib.suppress(LayoutError):
        check(faked, xml, own_groups(xml))


@settings(max_examples=100)
@given(cases())
def test_generated(faked: FakedHost, case: Case) -> None:
    """Random domain XML."""
    with contextlib.suppress(InputError, LayoutError):
        check(faked, without_kvm(case.data), case.topology.iommu_groups)
