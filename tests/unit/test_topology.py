"""The host's topology for one guest: its endpoints, its networks and, where it has cells, NUMA nodes."""

from __future__ import annotations

from pathlib import Path

from papr_hook.config import Config
from papr_hook.host.topology import read_topology
from papr_hook.model import Cell, Device, Guest, HostTopology, PciAddress
from tests.helpers import sysfs as hosts

NIC = PciAddress(1, 1, 0, 0)


def config(tmp_path: Path) -> Config:
    sysfs = hosts.write_host(tmp_path / "sys", hosts.TWO_PORT_NIC, {0: "0-3"})
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks/vfs.xml").write_text("<network><forward mode='hostdev'/></network>")
    return Config(sysfs=sysfs, domain_dir=tmp_path, libvirt_run_dir=tmp_path / "run")


def test_guest_without_host_devices(tmp_path: Path) -> None:
    """An emulated device asks nothing of the host."""
    guest = Guest("g", devices=(Device("<disk> vda"),))
    assert read_topology(guest, config(tmp_path), proc=tmp_path) == HostTopology()


def test_endpoint_and_network(tmp_path: Path) -> None:
    """The group of a host device is read with all its members, and the guest's networks are looked up."""
    devices = (Device("<hostdev> nic", passthrough=True, source=NIC), Device("<interface> a", network="vfs"))
    topology = read_topology(Guest("g", devices=devices), config(tmp_path), proc=tmp_path)
    assert topology.iommu_groups == {NIC: 5, PciAddress(1, 1, 0, 1): 5}
    assert topology.devices.keys() == topology.iommu_groups.keys()
    assert topology.hostdev_networks == {"vfs"}
    assert topology.node_cpus == {}


def test_networks_known_from_elsewhere(tmp_path: Path) -> None:
    """A network that libvirt said to hand out host devices counts, whatever the files say."""
    topology = read_topology(Guest("g"), config(tmp_path), frozenset({"far"}), proc=tmp_path)
    assert topology.hostdev_networks == {"far"}


def test_cells_ask_for_the_nodes(tmp_path: Path) -> None:
    """The host's NUMA nodes are read only for a guest that has cells."""
    topology = read_topology(Guest("g", cells=(Cell(0),)), config(tmp_path), proc=tmp_path)
    assert topology.node_cpus == {0: {0, 1, 2, 3}}
