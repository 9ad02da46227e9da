"""What the host knows: the IOMMU groups of its devices, and its networks.

Read from sysfs and from libvirt's files, never from libvirt, so that a hook can do it.
"""

from __future__ import annotations

from pathlib import Path

from .domain.xmltext import parse
from .errors import PaprHookError
from .model import Guest, HostAddress, HostFacts
from .policy import Policy


def facts_for(guest: Guest, policy: Policy) -> HostFacts:
    """What the layout of a guest needs to know of this host.

    policy: says where sysfs is, and where libvirt keeps its networks: persistent ones with its
    definitions, active ones in its run directory (src/conf/virnetworkobj.c). What cannot be read
    is left out: a definition may be meant for another host.
    """
    networks = (policy.definitions / "networks", policy.run / "network")
    sources = {device.source for device in guest.devices if device.source is not None}
    names = {device.network for device in guest.devices if device.network is not None}
    groups = {source: _group(source, policy.sysfs) for source in sources}
    return HostFacts(
        groups={source: group for source, group in groups.items() if group is not None},
        hostdev_networks=frozenset(
            name for name in names if "/" not in name and any(_hands_out_hostdevs(d / f"{name}.xml") for d in networks)
        ),
    )


def _group(source: HostAddress, sysfs: Path) -> int | None:
    """The IOMMU group of a host device (Linux Documentation/ABI/testing/sysfs-bus-pci)."""
    link = sysfs / "bus/pci/devices" / str(source) / "iommu_group"
    try:
        name = link.resolve(strict=True).name
    except (OSError, RuntimeError):
        return None
    return int(name) if name.isascii() and name.isdigit() else None


def _hands_out_hostdevs(file: Path) -> bool:
    """Whether a network's <forward mode='hostdev'> makes an interface a host device."""
    try:
        root = parse(file.read_bytes()).getroot()
    except (OSError, ValueError, PaprHookError):
        return False
    network = root if root.tag == "network" else root.find("network")
    forward = network.find("forward") if network is not None else None
    return forward is not None and forward.get("mode") == "hostdev"
