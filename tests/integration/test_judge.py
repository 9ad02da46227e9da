"""libvirt as the judge: what it makes of a layout is what was asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from hypothesis import given, settings
from lxml import etree

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.errors import InputError, LayoutError
from papr_hook.model import Guest
from tests.harness.libvirt_host import Host
from tests.helpers.generate import Case, cases
from tests.helpers.paths import CORPUS, GOLDEN

from . import devicetree

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def connection(host: Host) -> Iterator[libvirt.virConnect]:
    """A connection to a host without the hook."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    found = libvirt.open(host.uri)
    yield found
    found.close()


def without_kvm(data: bytes, crypto: bool = False) -> bytes:
    """A definition for a host without KVM and without the emulator that it was written for.

    crypto: keep <crypto> and <pstore>, which libvirt 9.0 passes over, and later ones put on PCI.
    """
    root = etree.fromstring(data)
    root.set("type", "qemu")
    newer = () if crypto else ("devices/crypto", "devices/pstore")
    for path in (*newer, "devices/emulator", "uuid", "clock", "features", "cpu"):
        for element in root.findall(path):
            parent = element.getparent()
            if parent is not None and element.find("numa") is None:
                parent.remove(element)
    for name in root.findall("name"):
        name.text = "judged"
    return etree.tostring(root)


def made_of(connection: libvirt.virConnect, definition: bytes, flags: int) -> Guest:
    """What libvirt makes of a definition. Raises libvirt.libvirtError where it does not take it."""
    defined = connection.defineXMLFlags(definition.decode(), flags)
    try:
        dumped = defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    finally:
        defined.undefine()
    found = domainxml.read(dumped.encode()).guest
    assert found is not None
    return found


def refusal(connection: libvirt.virConnect, definition: bytes, flags: int) -> str | None:
    """Why libvirt does not take a definition."""
    try:
        made_of(connection, definition, flags)
    except libvirt.libvirtError as error:
        return str(error)
    return None


def phbs(guest: Guest) -> list[tuple[int, int | None, int | None]]:
    return sorted((phb.index, phb.target, phb.node) for phb in guest.phbs)


def check_what_libvirt_makes(connection: libvirt.virConnect, given: bytes) -> None:
    """Lay a definition out, have libvirt define it, and compare."""
    given = without_kvm(given)
    analysis = pipeline.analyze(given, Config())
    result = analysis.apply_layout()
    laid_out, made = result.data, result.layout
    for flags in (libvirt.VIR_DOMAIN_DEFINE_VALIDATE, 0):
        refused = refusal(connection, laid_out, flags)
        if refused is not None:
            before = refusal(connection, given, flags)
            assert before is not None, f"libvirt takes it as it was, but not laid out: {refused}"
    if refused is not None or made is None:
        return
    found = made_of(connection, laid_out, 0)
    assert not found.bridges
    assert phbs(found) == [(phb.index, phb.target, phb.node) for phb in made.phbs]
    asked = sorted(str(place) for place in made.addresses)
    assert sorted(str(device.address) for device in found.devices) == asked


OTHER_MACHINES = {"x86-in.xml", "powernv-in.xml"}


@pytest.mark.parametrize("name", sorted({file.name for file in GOLDEN.glob("*-in.xml")} - OTHER_MACHINES))
def test_golden(connection: libvirt.virConnect, name: str) -> None:
    """Each golden pair, as libvirt sees it."""
    check_what_libvirt_makes(connection, (GOLDEN / name).read_bytes())


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus of real definitions in {CORPUS}")
@pytest.mark.parametrize("file", sorted((CORPUS / "pseries").glob("*.xml")), ids=lambda file: file.stem)
def test_corpus(connection: libvirt.virConnect, file: Path) -> None:
    """Each real definition, as libvirt sees it."""
    check_what_libvirt_makes(connection, file.read_bytes())


@settings(max_examples=int(os.environ.get("PAPR_TEST_GENERATED", "150")))
@given(cases())
def test_generated(connection: libvirt.virConnect, case: Case) -> None:
    """Definitions that nobody wrote, as libvirt sees them."""
    with contextlib.suppress(InputError, LayoutError):
        check_what_libvirt_makes(connection, case.data)


# Goldens without host devices and without what a QEMU of this machine cannot emulate.
STARTED = [
    "added-by-libvirt", "aliases", "alone-on-vphb-0", "bridge-is-bus-1", "complies", "decimal-and-octal",
    "ehci-companions", "eleven-sata-disks", "forty-channels", "function-1-first", "gaps", "lone-function-1",
    "multifunction", "numa-node-moves-along", "pc-shaped", "spares-6", "thirty-two-devices",
]  # fmt: skip


def startable(name: str, disks: Path) -> bytes:
    """A golden layout that can be started, with its disks in a directory, and without boot ROMs."""
    definition = etree.fromstring(without_kvm((GOLDEN / f"{name}-out.xml").read_bytes()))
    for source in definition.findall("devices/disk/source"):
        source.set("file", str(disks / Path(source.get("file", "")).name))
    for interface in definition.findall("devices/interface"):
        etree.SubElement(interface, "rom").set("enabled", "no")
    htm = etree.SubElement(etree.SubElement(definition, "features"), "htm")
    htm.set("state", "off")
    return etree.tostring(definition)


def disks_of(definition: bytes) -> list[str]:
    """The files that a definition's disks are in."""
    return [source.get("file", "") for source in etree.fromstring(definition).findall("devices/disk/source")]


def check_device_tree(definition: bytes, tree: bytes) -> None:
    """Compare QEMU's device tree with the layout that it was started with."""
    asked = domainxml.read(definition).guest
    assert asked is not None
    found = devicetree.read(tree)
    targets = {phb.index: phb.target for phb in asked.phbs}
    assert sorted(found) == sorted(target for target in targets.values() if target is not None)
    there = sorted((target, slot, function) for target, devices in found.items() for slot, function in devices)
    addresses = [device.address for device in asked.devices if device.address is not None]
    assert there == sorted((targets[at.bus], at.slot, at.function) for at in addresses)


@pytest.mark.parametrize("name", STARTED)
def test_device_tree(host: Host, root: Path, tmp_path: Path, name: str) -> None:
    """QEMU's own device tree has the PHBs and devices of the layout, each at its address."""
    definition = startable(name, tmp_path)
    for file in disks_of(definition):
        Path(file).write_bytes(bytes(512))
    tree = root / "tree.dtb"
    host.virsh("create", "--paused", "/dev/stdin", input=definition.decode())
    try:
        host.virsh("qemu-monitor-command", "judged", "--hmp", f"dumpdtb {tree}")
        check_device_tree(definition, tree.read_bytes())
    finally:
        host.virsh("destroy", "judged")
        tree.unlink(missing_ok=True)
