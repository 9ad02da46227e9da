"""PCI devices, IOMMU groups and NUMA nodes, read from a sysfs that may be in disorder."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.host import sysfs
from papr_hook.model import HostDevice, PciAddress
from tests.helpers import sysfs as hosts

NIC, SECOND_PORT = PciAddress(1, 1, 0, 0), PciAddress(1, 1, 0, 1)


def test_device_comes_with_its_group(tmp_path: Path) -> None:
    """A device brings the other members of its IOMMU group, and not the bridge above, which has a group of its own."""
    hosts.write_host(tmp_path, hosts.TWO_PORT_NIC)
    devices = sysfs.read_devices([NIC], tmp_path)
    assert devices == {
        address: HostDevice(address, iommu_group=5, pci_class=0x020000, driver="e1000e", node=0)
        for address in (NIC, SECOND_PORT)
    }


def test_bridge_in_a_group(tmp_path: Path) -> None:
    """A bridge of the device's own group is read with it, and known as a bridge."""
    hosts.write_host(tmp_path, hosts.GROUP_WITH_BRIDGE)
    devices = sysfs.read_devices([PciAddress(5, 0x90, 1, 0)], tmp_path)
    assert len(devices) == 4
    assert [str(address) for address, device in devices.items() if device.is_bridge] == ["0005:80:00.0"]


def test_virtual_function_names_its_parent(tmp_path: Path) -> None:
    """A virtual function has its physical function as its parent."""
    hosts.write_host(tmp_path, hosts.SRIOV_NIC)
    virtual = PciAddress(3, 1, 0, 2)
    assert sysfs.read_devices([virtual], tmp_path)[virtual].parent == PciAddress(3, 1, 0, 0)


def test_nvlink_bridge_is_known_by_its_device_tree(tmp_path: Path) -> None:
    """All four properties make an NVLink2 bridge; the GPU beside it has one of another kind."""
    hosts.write_host(tmp_path, hosts.NVLINK_GPU)
    devices = sysfs.read_devices([PciAddress(4, 4, 0, 0)], tmp_path)
    assert {str(address): device.nvlink2 for address, device in devices.items()} == {
        "0004:04:00.0": False,
        "0006:00:00.0": True,
        "0006:00:00.1": True,
    }


@pytest.mark.parametrize("address", [PciAddress(9, 1, 0, 0), PciAddress(0x10000, 0, 0, 0)])
def test_absent_device(tmp_path: Path, address: PciAddress) -> None:
    """A device that this host does not have is left out."""
    hosts.write_host(tmp_path, hosts.TWO_PORT_NIC)
    assert sysfs.read_devices([address], tmp_path) == {}


def test_no_sysfs(tmp_path: Path) -> None:
    """Nothing is known of a host without a sysfs, and nothing fails."""
    assert sysfs.read_devices([NIC], tmp_path / "none") == {}
    assert sysfs.read_node_cpus(tmp_path / "none") == {}


def test_disorder(tmp_path: Path) -> None:
    """Cyclic and dangling links, a directory for a file, and text for a number make single facts unknown."""
    hosts.write_host(tmp_path, hosts.TWO_PORT_NIC)
    hosts.disorder(tmp_path / "bus/pci/devices" / str(NIC))
    assert sysfs.read_devices([NIC], tmp_path) == {NIC: HostDevice(NIC)}


@pytest.mark.parametrize("name", ["five", "\u0665"])
def test_group_that_is_no_number(tmp_path: Path, name: str) -> None:
    """A group whose name is no ASCII number is unknown."""
    hosts.write_host(tmp_path, hosts.TWO_PORT_NIC)
    link = tmp_path / "bus/pci/devices" / str(NIC) / "iommu_group"
    (tmp_path / "kernel/iommu_groups" / name).mkdir()
    link.unlink()
    link.symlink_to(tmp_path / "kernel/iommu_groups" / name)
    assert sysfs.read_devices([NIC], tmp_path)[NIC].iommu_group is None


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3", {0, 1, 2, 3}), ("0,8-9", {0, 8, 9}), ("", set()), ("5", {5})],
)
def test_processors_of_a_node(tmp_path: Path, text: str, cpus: set[int]) -> None:
    """cpulist holds single processors and ranges."""
    hosts.write_host(tmp_path, {}, {0: text, 8: "80"})
    (tmp_path / "devices/system/node/possible").write_text("0-255\n")
    assert sysfs.read_node_cpus(tmp_path) == {0: cpus, 8: {80}}
