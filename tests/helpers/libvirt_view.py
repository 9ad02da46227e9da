"""Compare layouts with what libvirt and QEMU make of them."""

from __future__ import annotations

from pathlib import Path

import libvirt
from lxml import etree

from papr_hook import domainxml
from papr_hook.model import Guest
from tests.helpers import device_tree
from tests.helpers.paths import GOLDEN

# Goldens without host devices and without what a QEMU of this machine cannot emulate.
STARTED = [
    "added-by-libvirt", "aliases", "alone-on-vphb-0", "bridge-is-bus-1", "complies", "decimal-and-octal",
    "ehci-companions", "eleven-sata-disks", "forty-channels", "function-1-first", "gaps", "lone-function-1",
    "multifunction", "numa-node-moves-along", "pc-shaped", "spares-6", "thirty-two-devices",
]  # fmt: skip


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


def made_of(connection: libvirt.virConnect, xml: bytes, flags: int = 0) -> Guest:
    """Return what libvirt makes of domain XML.

    Args:
        connection: A connection to libvirt, which does not keep the guest.
        xml: The domain XML.
        flags: libvirt's flags for the definition (virDomainDefineFlags).

    Raises:
        libvirt.libvirtError: libvirt refuses the domain XML.
    """
    defined = connection.defineXMLFlags(xml.decode(), flags)
    try:
        dumped = defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    finally:
        defined.undefine()
    guest = domainxml.read(dumped.encode()).guest
    assert guest is not None
    return guest


def phbs(guest: Guest) -> list[tuple[int, int | None, int | None]]:
    return sorted((phb.index, phb.target, phb.node) for phb in guest.phbs)


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
    found = device_tree.read(tree)
    targets = {phb.index: phb.target for phb in asked.phbs}
    assert sorted(found) == sorted(target for target in targets.values() if target is not None)
    there = sorted((target, slot, function) for target, devices in found.items() for slot, function in devices)
    addresses = [device.address for device in asked.devices if device.address is not None]
    assert there == sorted((targets[at.bus], at.slot, at.function) for at in addresses)
