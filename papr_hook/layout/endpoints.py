"""Whether the partitionable endpoints of a guest are whole, and where in the host they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Name, Severity, warning
from ..model import Device, Guest, HostDevice, HostTopology, PciAddress
from ..ranges import Ranges
from ..records import Record
from .groups import DeviceGroup, group_devices

_COMPATIBLE_DRIVERS = frozenset({"pci-stub", "pcieport"})
"""Drivers beside VFIO's own that leave a group usable: they do no DMA (driver_managed_dma in their Linux sources)."""


@dataclass(frozen=True, eq=False, repr=False)
class Missing(Record):
    """Members of an endpoint that are not passed through, beside a device that is.

    Attributes:
        device: The first of the endpoint's devices in the domain XML.
        position: The index of that device in the guest's devices.
        iommu_group: The IOMMU group of the endpoint.
        members: The missing members.
    """

    device: Device
    position: int
    iommu_group: int
    members: tuple[HostDevice, ...]

    def __str__(self) -> str:
        names = ", ".join(_member(member) for member in self.members)
        return f"is in IOMMU group {self.iommu_group}, but these members are not passed through: {names}"

    @property
    def blocking(self) -> tuple[HostDevice, ...]:
        """The members whose host driver keeps QEMU from using the group.

        QEMU says "group N is not viable" then (iommu_group_claim_dma_owner in Linux drivers/iommu/iommu.c).
        """
        return tuple(member for member in self.members if _blocks_group(member))

    @property
    def detach_commands(self) -> str:
        """The commands that take the blocking members from their host drivers, or "" if the host needs one of them."""
        if not self.blocking or any(member.used_for is not None for member in self.blocking):
            return ""
        return " and ".join(f"'virsh nodedev-detach {_nodedev(member.address)}'" for member in self.blocking)

    def diagnostic(self, severity: Severity) -> Diagnostic:
        """Return the finding about the endpoint."""
        text = str(self)
        if self.detach_commands:
            text += f"; QEMU refuses to start: set incomplete_pe = add, or run {self.detach_commands}"
        elif self.blocking:
            text += "; QEMU refuses to start"
        return Diagnostic(Name.INCOMPLETE_ENDPOINT, severity, text, self.device.name, self.device.line)


def _blocks_group(member: HostDevice) -> bool:
    return member.driver is not None and "vfio" not in member.driver and member.driver not in _COMPATIBLE_DRIVERS


def _nodedev(address: PciAddress) -> str:
    """Return libvirt's name of a host device (udevGenerateDeviceName in its src/node_device/node_device_udev.c)."""
    return f"pci_{address.domain:04x}_{address.bus:02x}_{address.slot:02x}_{address.function:x}"


def missing_members(guest: Guest, topology: HostTopology) -> tuple[Missing, ...]:
    """Return the endpoints that are passed through in part. Bridges of an IOMMU group are never passed through.

    Args:
        guest: The guest as its domain XML describes it.
        topology: The members of the IOMMU groups of its host devices.
    """
    passed = {device.source for device in guest.devices} | guest.unassigned
    absent: dict[int | None, list[HostDevice]] = {}
    for address, device in sorted(topology.devices.items()):
        if address not in passed and not device.is_bridge:
            absent.setdefault(device.iommu_group, []).append(device)
    if not absent:
        return ()
    found = []
    for group in group_devices(guest, topology):
        members = absent.get(group.iommu_group) if group.iommu_group is not None else None
        if members and group.iommu_group is not None:
            first = group.members[0]
            found.append(Missing(guest.devices[first], first, group.iommu_group, tuple(members)))
    return tuple(found)


def can_be_added(missing: Missing) -> tuple[PciAddress, ...]:
    """Return the addresses of the missing members that the host itself does not use."""
    return tuple(member.address for member in missing.members if member.used_for is None)


def unresolved_hostdevs(guest: Guest, topology: HostTopology) -> Iterator[Diagnostic]:
    """Yield a warning for each passed-through device whose endpoint is unknown.

    Args:
        guest: The guest as its domain XML describes it.
        topology: What is known about its host.
    """
    for device in guest.devices:
        text = _unresolved(device, topology)
        if text is not None:
            yield warning(Name.UNKNOWN_HOSTDEV, text, device.name, device.line)


def _unresolved(device: Device, topology: HostTopology) -> str | None:
    """Return why a device's endpoint is unknown, or None if it is known or the device is not passed through."""
    if device.source is None:
        return "names no host device" if device.passthrough and not device.is_mdev else None
    if device.source not in topology.devices:
        return "is not on this host, so its IOMMU group is unknown"
    return "is in no IOMMU group on this host" if device.source not in topology.iommu_groups else None


def numa_cell(group: DeviceGroup, guest: Guest, topology: HostTopology) -> int | None:
    """Return the guest NUMA cell that is on an endpoint's host node, or None if that is not clear.

    Args:
        group: The endpoint.
        guest: The guest, with what its cells are bound to.
        topology: The NUMA nodes of the host's devices and processors.
    """
    if not group.endpoint:
        return None
    nodes = {node for node in _nodes(group, guest, topology) if node is not None}
    if len(nodes) != 1:
        return None
    node = nodes.pop()
    by_memory = [cell.id for cell in guest.cells if cell.nodes == Ranges.single(node)]
    cpus = topology.node_cpus.get(node, frozenset())
    by_cpus = [cell.id for cell in guest.cells if not cell.nodes and cell.cpus and cell.cpus.issubset(cpus)]
    cells = by_memory or by_cpus
    return cells[0] if len(cells) == 1 else None


def _nodes(group: DeviceGroup, guest: Guest, topology: HostTopology) -> Iterable[int | None]:
    for member in group.members:
        source = guest.devices[member].source
        device = topology.devices.get(source) if source is not None else None
        yield device.node if device is not None else None


def _member(member: HostDevice) -> str:
    driver = f"driver {member.driver}" if member.driver is not None else "no driver"
    used = f", which the host uses for {member.used_for}" if member.used_for is not None else ""
    return f"{member.address} ({driver}{used})"
