"""The host's topology, as far as the layout of one guest needs it."""

from __future__ import annotations

from pathlib import Path

from ..config import Config
from ..model import Guest, HostTopology
from .networks import read_networks
from .sysfs import read_devices, read_node_cpus
from .usage import with_host_use


def read_topology(
    guest: Guest, config: Config, hostdev_networks: frozenset[str] = frozenset(), proc: Path = Path("/proc")
) -> HostTopology:
    """Read what the layout of a guest needs to know about this host.

    Args:
        guest: the guest; its host devices, networks and NUMA cells are looked up.
        config: says where sysfs and libvirt's directories are.
        hostdev_networks: networks that are known to hand out host devices, besides what the files say.
        proc: where proc is mounted.

    Returns:
        The topology; a fact that cannot be read is left out.
    """
    sources = [device.source for device in guest.devices if device.source is not None]
    devices = read_devices(sources, config.sysfs)
    networks = read_networks({device.network for device in guest.devices if device.network is not None}, config)
    return HostTopology(
        iommu_groups={
            address: device.iommu_group for address, device in devices.items() if device.iommu_group is not None
        },
        hostdev_networks=networks.hostdev | hostdev_networks,
        unread_networks=networks.unreadable - hostdev_networks,
        devices=with_host_use(devices, config.sysfs, proc),
        node_cpus=read_node_cpus(config.sysfs) if guest.cells else {},
    )
