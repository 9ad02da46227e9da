"""Domain XML for guests of the real hosts, and questions about domain XML."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.layout import check
from tests.harness import guest
from tests.harness.guest_image import Image
from tests.helpers.domain_xml import at, file_disk, nic

GRAPHICS_CARD = (
    "<controller type='usb' index='0' model='qemu-xhci'/><graphics type='vnc'/><video><model type='vga'/></video>"
)


def pc_shaped(disk: Path) -> str:
    """Devices as a PC has them, as far as libvirt lets a pseries guest have that: a PCI bridge with a disk behind
    it, and six devices on bus 0."""
    return (
        "<controller type='pci' index='0' model='pci-root'/>\n"
        f"<controller type='pci' index='1' model='pci-bridge'>{at(0, 1)}</controller>\n"
        f"<controller type='usb' index='0' model='qemu-xhci'>{at(0, 2)}</controller>\n"
        + file_disk(disk, "vda", at(1, 1))
        + nic(1, at(0, 3))
        + nic(2, at(0, 4), model="e1000e")
        + f"<rng model='virtio'><backend model='random'>/dev/urandom</backend>{at(0, 5)}</rng>\n"
        + f"<watchdog model='i6300esb'>{at(0, 6)}</watchdog>\n"
        + f"<memballoon model='virtio'>{at(0, 7)}</memballoon>\n"
    )


def crowded() -> str:
    """Two NICs on one vPHB: the least that does not comply."""
    return "<controller type='pci' index='0' model='pci-root'/>\n" + nic(1, at(0, 1)) + nic(2, at(0, 2))


def old_guest(image: Image, root: Path, devices: str = "", name: str = "g", extra: str = "", memory: int = 512) -> str:
    """A definition with a crowded PHB 0, and some MiB of memory."""
    text = guest.domain(name, image, root / f"{name}.console", devices or crowded(), extra=extra, memory=memory)
    return text.replace("</name>", "</name><uuid>6a2b0e5c-9a8f-4f0a-8b4f-0123456789ab</uuid>", 1)


def laid_out(xml: str) -> str:
    """A definition as papr-hook lays it out."""
    return pipeline.analyze(xml.encode(), Config()).apply_layout().data.decode()


def canonical(xml: str) -> str:
    """Return domain XML in the canonical form of XML."""
    return etree.tostring(etree.fromstring(xml), method="c14n").decode()


def complies(xml: str) -> bool:
    """Whether a definition keeps the contract."""
    return check.complies(pipeline.analyze(xml.encode(), Config()).violations())


def bus_of(xml: str, mac: str) -> int:
    """The vPHB of a NIC."""
    found = domainxml.read(xml.encode()).guest
    assert found is not None
    (address,) = [device.address for device in found.devices if mac in device.name]
    assert address is not None
    return address.bus


def addresses_of(xml: str) -> dict[str, str]:
    """Return the PCI address of each device, by its name in messages."""
    found = domainxml.read(xml.encode()).guest
    assert found is not None
    return {device.name: str(device.address) for device in found.devices}
