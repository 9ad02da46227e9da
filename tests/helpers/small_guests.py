"""Small guests, each with the devices that a test names and none that libvirt would add."""

from __future__ import annotations

from papr_hook import domainxml
from papr_hook.model import Guest


def root(index: int, inside: str = "") -> str:
    """Return a pci-root with the target index of its bus."""
    return f"<controller type='pci' index='{index}' model='pci-root'><target index='{index}'/>{inside}</controller>"


def at(bus: int, slot: int = 1, function: int = 0) -> str:
    """Return a PCI address in the guest."""
    return f"<address type='pci' bus='{bus}' slot='{slot}' function='{function}'/>"


def nic(number: int, address: str = "") -> str:
    """Return an emulated NIC."""
    return f"<interface type='user'><mac address='52:54:00:00:00:{number:02x}'/>{address}</interface>"


def disk(name: str, address: str = "") -> str:
    """Return a virtio disk."""
    return f"<disk><target dev='{name}' bus='virtio'/>{address}</disk>"


def hostdev(number: int, address: str = "") -> str:
    """Return a passed-through PCI device of the host."""
    source = f"<source><address bus='{number // 32 + 1}' slot='{number % 32}'/></source>"
    return f"<hostdev mode='subsystem' type='pci'>{source}{address}</hostdev>"


def read(*devices: str, metadata: str = "", commandline: str = "") -> Guest:
    """Return a guest with some devices."""
    words = "".join(f"<qemu:arg value='{word}'/>" for word in commandline.split())
    found = domainxml.read(
        f"""<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>{metadata}
        <os><type arch='ppc64le' machine='pseries'>hvm</type></os><devices>
        <controller type='usb' model='none'/><memballoon model='none'/>{"".join(devices)}</devices>
        <qemu:commandline>{words}</qemu:commandline></domain>""".encode()
    ).guest
    assert found is not None
    return found
