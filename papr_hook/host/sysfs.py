"""PCI devices, their IOMMU groups, and NUMA nodes, as sysfs shows them.

A file that is missing or malformed makes one fact unknown and is no error: domain XML may be meant for another host.
The files are described in Linux Documentation/ABI/testing/sysfs-bus-pci and sysfs-kernel-iommu_groups, and in
Documentation/ABI/stable/sysfs-devices-node.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..model import HostDevice, PciAddress

_ADDRESS = r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])"
_NVLINK2 = ("ibm,gpu", "ibm,nvlink", "ibm,nvlink-speed", "memory-region")
"""The device tree properties of a GPU's NVLink2 bridge (ppc64VFIODeviceIsNV2Bridge in libvirt's
src/qemu/qemu_domain.c)."""


def read_devices(addresses: Iterable[PciAddress], sysfs: Path) -> dict[PciAddress, HostDevice]:
    """Return host devices with all other devices of their IOMMU groups.

    Args:
        addresses: the devices that are asked for.
        sysfs: where sysfs is mounted.

    Returns:
        The devices by address; an address that this host does not have is left out.
    """
    devices: dict[PciAddress, HostDevice] = {}
    for address in addresses:
        device = _read_device(address, sysfs)
        if device is None:
            continue
        devices[address] = device
        for other in _group_members(device, sysfs):
            member = _read_device(other, sysfs)
            if member is not None:
                devices.setdefault(other, member)
    return devices


def device_path(address: PciAddress, sysfs: Path) -> Path:
    """Return the directory, or the link to it, that sysfs has for a PCI device.

    Args:
        address: the device's.
        sysfs: where sysfs is mounted.
    """
    return sysfs / "bus/pci/devices" / str(address)


def read_node_cpus(sysfs: Path) -> dict[int, frozenset[int]]:
    """Return the processors of each NUMA node.

    Args:
        sysfs: where sysfs is mounted.
    """
    nodes = sysfs / "devices/system/node"
    return {
        int(name[4:]): _parse_cpus(read_text(nodes / name / "cpulist"))
        for name in list_names(nodes)
        if re.fullmatch(r"node\d{1,6}", name)
    }


def read_text(file: Path) -> str:
    """Return a file's text without white space around it, or "" if the file cannot be read.

    Args:
        file: one of sysfs or proc.
    """
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def list_names(folder: Path) -> list[str]:
    """Return the names in a directory, sorted; none if it cannot be read.

    Args:
        folder: a directory of sysfs.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _read_device(address: PciAddress, sysfs: Path) -> HostDevice | None:
    folder = device_path(address, sysfs)
    if not folder.is_dir():
        return None
    group = _link_target(folder / "iommu_group")
    pci_class = read_text(folder / "class")
    node = read_text(folder / "numa_node")
    return HostDevice(
        address,
        iommu_group=int(group) if group is not None and group.isascii() and group.isdigit() else None,
        pci_class=int(pci_class, 16) if re.fullmatch("0x[0-9a-fA-F]{1,6}", pci_class) else None,
        driver=_link_target(folder / "driver"),
        node=int(node) if re.fullmatch(r"\d{1,6}", node) else None,
        parent=_parse_address(_link_target(folder / "physfn")),
        nvlink2=all((folder / "of_node" / name).exists() for name in _NVLINK2),
    )


def _group_members(device: HostDevice, sysfs: Path) -> list[PciAddress]:
    if device.iommu_group is None:
        return []
    names = list_names(sysfs / "kernel/iommu_groups" / str(device.iommu_group) / "devices")
    return [address for address in map(_parse_address, names) if address is not None]


def _link_target(link: Path) -> str | None:
    """Return the last name of a link's target, or None if the link is dangling or cyclic."""
    try:
        return link.resolve(strict=True).name
    except (OSError, RuntimeError):  # RuntimeError: a cycle, before Python 3.13
        return None


def _parse_address(name: str | None) -> PciAddress | None:
    match = re.fullmatch(_ADDRESS, name or "")
    return PciAddress(*(int(part, 16) for part in match.groups())) if match is not None else None


def _parse_cpus(text: str) -> frozenset[int]:
    spans = re.findall(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    return frozenset(cpu for low, high in spans for cpu in range(int(low), int(high or low) + 1))
