"""Hosts as sysfs shows them, for machines that have none: PCI devices, IOMMU groups, NUMA nodes.

Small ones of real kinds of POWER host; each says where its facts come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GROUPS = {
    "0001:01:00.0": 5,
    "0001:01:00.1": 5,
    "0001:01:00.2": 5,
    "0002:01:00.0": 7,
    "0002:01:00.1": 8,
}
"""The host of the golden pairs: a card of three functions in one group, and two on their own."""


@dataclass(frozen=True)
class Pci:
    """A PCI device of a host: its IOMMU group, class, driver, NUMA node, physical function, and what its device tree
    node has; behind: the device that it is behind."""

    iommu_group: int | None
    pci_class: int = 0x020000
    driver: str | None = None
    node: int = -1
    physfn: str | None = None
    of_node: tuple[str, ...] = ()
    behind: str | None = None


VIRTUAL_FUNCTIONS = {f"0003:01:0{number // 8}.{number % 8}": 20 + number for number in range(1, 23)}
"""Virtual functions of a NIC, each in an IOMMU group of its own."""

NVLINK2 = ("ibm,gpu", "ibm,nvlink", "ibm,nvlink-speed", "memory-region")

TWO_PORT_NIC = {
    "0001:00:00.0": Pci(4, 0x060400, "pcieport", 0),
    "0001:01:00.0": Pci(5, driver="e1000e", node=0, behind="0001:00:00.0"),
    "0001:01:00.1": Pci(5, driver="e1000e", node=0, behind="0001:00:00.0"),
}
"""A NIC with two ports in one group below a PHB's bridge: addresses, classes and groups as in libvirt's
tests/virpcimock.c, which has them from such a host."""

GROUP_WITH_BRIDGE = {
    "0005:80:00.0": Pci(7, 0x060400, None, 0),
    "0005:90:01.0": Pci(7, 0x0C0310, "ohci-pci", 0, behind="0005:80:00.0"),
    "0005:90:01.1": Pci(7, 0x0C0310, "ohci-pci", 0, behind="0005:80:00.0"),
    "0005:90:01.2": Pci(7, 0x0C0320, None, 0, behind="0005:80:00.0"),
}
"""A USB card of three functions behind a PCIe-to-PCI bridge: addresses as in libvirt's tests/virpcimock.c. Below a
conventional bus all functions and the bridge are one PE (Linux arch/powerpc/platforms/powernv/pci-ioda.c)."""

NVLINK_GPU = {
    "0004:04:00.0": Pci(1, 0x030200, "nvidia", 8, of_node=("ibm,npu",)),
    "0006:00:00.0": Pci(1, 0x068000, None, 8, of_node=NVLINK2),
    "0006:00:00.1": Pci(1, 0x068000, None, 8, of_node=NVLINK2),
    "0004:05:00.0": Pci(2, 0x030200, "nvidia", 8),
}
"""A POWER9 with GPUs on NVLink: the bridges of a GPU are put into its group (Linux
arch/powerpc/platforms/powernv/npu-dma.c), and are known by their device tree (libvirt's ppc64VFIODeviceIsNV2Bridge,
whose example is 0004:04:00.0). Such hosts number their NUMA nodes 0 and 8."""

SRIOV_NIC = {
    "0003:01:00.0": Pci(3, driver="mlx5_core", node=0),
    "0003:01:00.2": Pci(9, driver="mlx5_core", node=0, physfn="0003:01:00.0"),
    "0003:01:00.3": Pci(10, driver="vfio-pci", node=0, physfn="0003:01:00.0"),
}
"""A NIC with virtual functions, each a PE of its own (Linux arch/powerpc/platforms/powernv/pci-sriov.c)."""

NVME_BEHIND_SWITCH = {
    "0002:00:00.0": Pci(11, 0x060400, "pcieport", 8),
    "0002:01:00.0": Pci(12, 0x060400, "pcieport", 8, behind="0002:00:00.0"),
    "0002:02:01.0": Pci(13, 0x060400, "pcieport", 8, behind="0002:01:00.0"),
    "0002:03:00.0": Pci(14, 0x010802, "nvme", 8, behind="0002:02:01.0"),
}
"""An NVMe disk below a PCIe switch: each bus below a downstream port is a PE (Linux pci-ioda.c)."""


def write_sysfs(root: Path, groups: Mapping[str, int]) -> Path:
    """A sysfs tree with PCI devices, by address, and their IOMMU groups. Returns its root."""
    return write_host(root, {address: Pci(group) for address, group in groups.items()})


def write_host(root: Path, devices: Mapping[str, Pci], node_cpus: Mapping[int, str] = {}) -> Path:
    """A sysfs tree with PCI devices and NUMA nodes, as far as papr-hook reads it. Returns its root."""
    folders: dict[str, Path] = {}
    for address, device in devices.items():
        parent = folders[device.behind] if device.behind else root / "devices" / f"pci{address[:7]}"
        folders[address] = parent / address
        _write_device(root, folders[address], device)
    for address, device in devices.items():
        if device.physfn is not None:
            (folders[address] / "physfn").symlink_to(folders[device.physfn])
    for node, cpus in node_cpus.items():
        folder = root / f"devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{cpus}\n")
    return root


def _write_device(root: Path, folder: Path, device: Pci) -> None:
    folder.mkdir(parents=True)
    (folder / "class").write_text(f"{device.pci_class:#08x}\n")
    (folder / "numa_node").write_text(f"{device.node}\n")
    if device.iommu_group is not None:
        _link(root / "kernel/iommu_groups" / str(device.iommu_group) / "devices" / folder.name, folder)
        (folder / "iommu_group").symlink_to(root / "kernel/iommu_groups" / str(device.iommu_group))
    if device.driver is not None:
        driver = root / "bus/pci/drivers" / device.driver
        driver.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(driver)
    for name in device.of_node:
        (folder / "of_node").mkdir(exist_ok=True)
        (folder / "of_node" / name).touch()
    _link(root / "bus/pci/devices" / folder.name, folder)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def disorder(device: Path) -> None:
    """Make cyclic and dangling links, a directory for a file and text for a number in the folder of a PCI device."""
    for name in ("iommu_group", "driver"):
        (device / name).unlink()
        (device / name).symlink_to(name)
    (device / "class").unlink()
    (device / "class").mkdir()
    (device / "numa_node").write_text("none\n")
    (device / "physfn").symlink_to(device / "nowhere")
