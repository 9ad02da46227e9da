"""Build the devices of the demonstration's guests, as tools for PCs write them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["E1000E_MAC", "HOTPLUGGED_MAC", "nic", "pc_shaped", "with_root_ports"]

VIRTIO_MAC = "52:54:00:00:00:01"
E1000E_MAC = "52:54:00:00:00:02"
HOTPLUGGED_MAC = "52:54:00:00:00:09"


def at(bus: int, slot: int) -> str:
    """Return a PCI address."""
    return f"<address type='pci' domain='0x0000' bus='{bus:#04x}' slot='{slot:#04x}' function='0x0'/>"


def nic(mac: str, model: str, address: str = "") -> str:
    """Return a NIC; without an address, libvirt places it."""
    last = f"  {address}\n" if address else ""
    return f"<interface type='user'>\n  <mac address='{mac}'/>\n  <model type='{model}'/>\n{last}</interface>\n"


def bridge(index: int, model: str, address: str) -> str:
    """Return a PCI controller that has an address."""
    return f"<controller type='pci' index='{index}' model='{model}'>\n  {address}\n</controller>\n"


def disk(file: Path, address: str) -> str:
    """Return a virtio disk."""
    return (
        "<disk type='file' device='disk'>\n  <driver name='qemu' type='qcow2'/>\n"
        f"  <source file='{file}'/>\n  <target dev='vda' bus='virtio'/>{address}\n</disk>\n"
    )


def with_root_ports(file: Path) -> str:
    """Return what virt-install would write for a PC: root ports, and a PCIe-to-PCI bridge."""
    return (
        "<controller type='pci' index='0' model='pci-root'/>\n"
        + bridge(1, "pcie-root-port", at(0, 2))
        + bridge(2, "pcie-to-pci-bridge", at(1, 0))
        + nic(VIRTIO_MAC, "virtio", at(0, 3))
        + disk(file, at(2, 1))
    )


def pc_shaped(file: Path) -> str:
    """Return what libvirt takes of that: a PCI bridge with a disk behind it, and six devices on bus 0."""
    return (
        "<controller type='pci' index='0' model='pci-root'/>\n"
        + bridge(1, "pci-bridge", at(0, 1))
        + f"<controller type='usb' index='0' model='qemu-xhci'>{at(0, 2)}</controller>\n"
        + disk(file, at(1, 1))
        + nic(VIRTIO_MAC, "virtio", at(0, 3))
        + nic(E1000E_MAC, "e1000e", at(0, 4))
        + f"<rng model='virtio'><backend model='random'>/dev/urandom</backend>{at(0, 5)}</rng>\n"
        + f"<watchdog model='i6300esb'>{at(0, 6)}</watchdog>\n"
        + f"<memballoon model='virtio'>{at(0, 7)}</memballoon>\n"
    )
