"""Build domain XML and device XML."""

from __future__ import annotations

from pathlib import Path

QUIET = "<controller type='usb' index='0' model='none'/><memballoon model='none'/>"
"""Keeps libvirt from adding devices."""


def at(bus: int, slot: int = 1, function: int = 0, more: str = "") -> str:
    """Return a PCI address."""
    return f"<address type='pci' domain='0' bus='{bus:#x}' slot='{slot:#x}' function='{function:#x}'{more}/>"


def mac(number: int) -> str:
    """Return a MAC address."""
    return f"52:54:00:00:00:{number:02x}"


def nic(number: int, address: str = "", *, model: str = "virtio") -> str:
    """Return an emulated NIC."""
    return f"<interface type='user'><mac address='{mac(number)}'/><model type='{model}'/>{address}</interface>\n"


def disk(name: str, address: str = "") -> str:
    """Return a virtio disk."""
    return (
        f"<disk type='file' device='disk'><source file='/{name}'/><target dev='{name}' bus='virtio'/>{address}</disk>"
    )


def file_disk(file: Path, target: str, address: str = "") -> str:
    """Return a virtio disk that is a qcow2 file."""
    return (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{file}'/><target dev='{target}' bus='virtio'/>{address}</disk>\n"
    )


def hostdev(source: str, address: str = "") -> str:
    """Return a PCI host device."""
    domain, bus, rest = source.split(":")
    slot, function = rest.split(".")
    return (
        "<hostdev mode='subsystem' type='pci' managed='yes'><source><address "
        f"domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source>{address}</hostdev>"
    )


NUMA_CELLS = (
    "<cpu><numa><cell id='0' cpus='0-1' memory='1' unit='GiB'/>"
    "<cell id='1' cpus='2-3' memory='1' unit='GiB'/></numa></cpu>"
)
"""Two NUMA cells of a guest with four CPUs."""


def domain_xml(devices: str = "", phbs: int = 5, running: bool = True, extra: str = "") -> bytes:
    """Return the domain XML of a guest with some vPHBs; that of a running guest has an id."""
    roots = "".join(
        f"<controller type='pci' index='{n}' model='pci-root'><target index='{n}'/></controller>" for n in range(phbs)
    )
    return (
        f"<domain type='qemu'{' id=' + repr('7') if running else ''}><name>g</name><memory>1</memory>"
        f"<os><type arch='ppc64' machine='pseries'>hvm</type></os>{extra}"
        f"<devices>{roots}{devices}{QUIET}</devices></domain>"
    ).encode()
