"""What the host knows: its PCI devices and their IOMMU groups, its NUMA nodes, and its networks.

Read from sysfs and from libvirt's files, never from libvirt, so that a hook can do it. What cannot
be read is left out: a definition may be meant for another host, and a sysfs may be half there.
The files are described in Linux Documentation/ABI/testing/sysfs-bus-pci and sysfs-kernel-iommu_groups.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..config import Config
from ..domainxml.text import parse
from ..errors import PaprHookError
from ..model import Guest, HostDevice, HostTopology, PciAddress

_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_NVLINK2 = ("ibm,gpu", "ibm,nvlink", "ibm,nvlink-speed", "memory-region")
"""What libvirt knows such a device by (ppc64VFIODeviceIsNV2Bridge in src/qemu/qemu_domain.c)."""


def read_topology(
    guest: Guest, config: Config, networks: frozenset[str] = frozenset(), proc: Path = Path("/proc")
) -> HostTopology:
    """What the layout of a guest needs to know of this host.

    networks: those that are known to hand out host devices, beside what the files tell. policy:
    says where sysfs is, and where libvirt keeps its networks: persistent ones with its
    definitions, active ones in its run directory (src/conf/virnetworkobj.c). proc: where the
    kernel says what is mounted, and what the default route is.
    """
    sources = {device.source for device in guest.devices if device.source is not None}
    devices = _with_groups(sources, config.sysfs)
    handing, unread = _networks(guest, config)
    return HostTopology(
        iommu_groups={
            address: device.iommu_group for address, device in devices.items() if device.iommu_group is not None
        },
        hostdev_networks=handing | networks,
        unread_networks=unread - networks,
        devices=_with_uses(devices, config.sysfs, proc),
        node_cpus=_node_cpus(config.sysfs) if guest.cells else {},
    )


def _with_groups(sources: Iterable[PciAddress], sysfs: Path) -> dict[PciAddress, HostDevice]:
    """Devices of the host, and all others of their groups."""
    found: dict[PciAddress, HostDevice] = {}
    for source in sources:
        device = _device(source, sysfs)
        if device is None:
            continue
        found[source] = device
        for other in _members(device, sysfs):
            member = _device(other, sysfs)
            if member is not None:
                found.setdefault(other, member)
    return found


def _device(address: PciAddress, sysfs: Path) -> HostDevice | None:
    folder = sysfs / "bus/pci/devices" / str(address)
    if not folder.is_dir():
        return None
    group = _linked(folder / "iommu_group")
    pci_class = _text(folder / "class")
    node = _text(folder / "numa_node")
    return HostDevice(
        address,
        iommu_group=int(group) if group is not None and group.isascii() and group.isdigit() else None,
        pci_class=int(pci_class, 16) if re.fullmatch("0x[0-9a-fA-F]{1,6}", pci_class) else None,
        driver=_linked(folder / "driver"),
        node=int(node) if re.fullmatch(r"\d{1,6}", node) else None,
        parent=_address(_linked(folder / "physfn")),
        nvlink2=all((folder / "of_node" / name).exists() for name in _NVLINK2),
    )


def _members(device: HostDevice, sysfs: Path) -> Iterable[PciAddress]:
    if device.iommu_group is None:
        return []
    names = _names(sysfs / "kernel/iommu_groups" / str(device.iommu_group) / "devices")
    return [address for address in map(_address, names) if address is not None]


def _linked(link: Path) -> str | None:
    """The name of what a link leads to; None for one that leads nowhere, or in circles."""
    try:
        return link.resolve(strict=True).name
    except (OSError, RuntimeError):
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _address(name: str | None) -> PciAddress | None:
    match = _ADDRESS.fullmatch(name or "")
    return PciAddress(*(int(part, 16) for part in match.groups())) if match is not None else None


def _node_cpus(sysfs: Path) -> dict[int, frozenset[int]]:
    """The processors of each NUMA node (sysfs-devices-node: cpulist)."""
    nodes = sysfs / "devices/system/node"
    found = {}
    for name in _names(nodes):
        if re.fullmatch(r"node\d{1,6}", name):
            found[int(name[4:])] = _cpus(_text(nodes / name / "cpulist"))
    return found


def _cpus(text: str) -> frozenset[int]:
    spans = re.findall(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    return frozenset(cpu for low, high in spans for cpu in range(int(low), int(high or low) + 1))


def _with_uses(devices: dict[PciAddress, HostDevice], sysfs: Path, proc: Path) -> dict[PciAddress, HostDevice]:
    """The devices, each with what the host itself needs it for."""
    if not devices:
        return {}
    uses = dict.fromkeys(_mounted(sysfs, proc), "a mounted disk")
    uses.update(dict.fromkeys(_routed(sysfs, proc), "its default route"))
    found = {}
    for address, device in devices.items():
        folder = os.path.realpath(sysfs / "bus/pci/devices" / str(address)) + os.sep
        used_for = next((use for path, use in uses.items() if path.startswith(folder)), None)
        found[address] = HostDevice(**{**vars(device), "used_for": used_for})
    return found


def _mounted(sysfs: Path, proc: Path) -> Iterable[str]:
    """Where in sysfs the disks are that something is mounted from, or swapped to."""
    lines = _text(proc / "self/mountinfo").splitlines()
    numbers = {fields[2] for fields in map(str.split, lines) if len(fields) > 2}
    for number in sorted(numbers):
        yield from _disks(sysfs / "dev/block" / number)
    for line in _text(proc / "swaps").splitlines()[1:]:
        yield from _disks(sysfs / "class/block" / Path(line.split()[0]).name)


def _disks(block: Path, depth: int = 0) -> Iterable[str]:
    """A block device and those below it: device mapper and RAID stand on others."""
    yield os.path.realpath(block)
    if depth < 8:
        for slave in _names(block / "slaves"):
            yield from _disks(block / "slaves" / slave, depth + 1)


def _routed(sysfs: Path, proc: Path) -> Iterable[str]:
    """Where in sysfs the interfaces are that a default route goes through."""
    names = set()
    for line in _text(proc / "net/route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            names.add(fields[0])
    for line in _text(proc / "net/ipv6_route").splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[0].strip("0") == "" and fields[1] == "00" and fields[9] != "lo":
            names.add(fields[9])
    for name in sorted(names):
        yield from _interfaces(sysfs / "class/net" / name)


def _interfaces(interface: Path, depth: int = 0) -> Iterable[str]:
    """An interface and those below it: bridges, bonds and VLANs stand on others."""
    yield os.path.realpath(interface / "device") + os.sep
    if depth < 8:
        for name in _names(interface):
            if name.startswith("lower_"):
                yield from _interfaces(interface / name, depth + 1)


def _networks(guest: Guest, config: Config) -> tuple[frozenset[str], frozenset[str]]:
    """Of a guest's networks, those that hand out host devices, and those whose files may not be read."""
    found: set[str] = set()
    unread: set[str] = set()
    names = {device.network for device in guest.devices if device.network is not None}
    for name in names:
        for folder in (config.domain_dir / "networks", config.libvirt_run_dir / "network") if "/" not in name else ():
            try:
                data = (folder / f"{name}.xml").read_bytes()
            except PermissionError:
                unread.add(name)
            except (OSError, ValueError):
                continue
            else:
                found.update({name} if hands_out_hostdevs(data) else ())
    return frozenset(found), frozenset(unread - found)


def hands_out_hostdevs(network: bytes) -> bool:
    """Whether a network's <forward mode='hostdev'> makes an interface a host device.

    network: its XML, as libvirt tells it or keeps it.
    """
    try:
        root = parse(network).getroot()
    except PaprHookError:
        return False
    inner = root if root.tag == "network" else root.find("network")
    forward = inner.find("forward") if inner is not None else None
    return forward is not None and forward.get("mode") == "hostdev"
