"""Whether the partitionable endpoints of a guest are whole, and where in the host they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Name, Severity, warning
from ..model import Device, Guest, HostDevice, HostTopology, PciAddress
from ..ranges import Ranges
from .groups import DeviceGroup, group_devices


@dataclass(frozen=True)
class Missing:
    """Members of an endpoint that are not passed through, beside a device that is.

    device: the first of the endpoint's devices in the definition, and position: which of the
    guest's that is; group: its IOMMU group.
    """

    device: Device
    position: int
    iommu_group: int
    members: tuple[HostDevice, ...]

    def __str__(self) -> str:
        names = ", ".join(_member(member) for member in self.members)
        return f"is in IOMMU group {self.iommu_group}, but these members are not passed through: {names}"

    def diagnostic(self, severity: Severity) -> Diagnostic:
        """Return the finding about the endpoint."""
        return Diagnostic(Name.INCOMPLETE_ENDPOINT, severity, str(self), self.device.name, self.device.line)


def missing_members(guest: Guest, topology: HostTopology) -> tuple[Missing, ...]:
    """The endpoints that are passed through in part. Bridges of a group are never passed through."""
    passed = {device.source for device in guest.devices} | guest.unassigned
    found = []
    for group in group_devices(guest, topology):
        if group.iommu_group is None:
            continue
        members = tuple(
            device
            for address, device in sorted(topology.devices.items())
            if device.iommu_group == group.iommu_group and address not in passed and not device.is_bridge
        )
        if members:
            first = group.members[0]
            found.append(Missing(guest.devices[first], first, group.iommu_group, members))
    return tuple(found)


def can_be_added(missing: Missing) -> tuple[PciAddress, ...]:
    """The missing members that the host can do without."""
    return tuple(member.address for member in missing.members if member.used_for is None)


def unresolved_hostdevs(guest: Guest, topology: HostTopology) -> Iterator[Diagnostic]:
    """Yield a warning for each passed-through device whose endpoint is unknown.

    Args:
        guest: the guest, as its domain XML has it.
        topology: what the host said.
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


def cell_of(group: DeviceGroup, guest: Guest, topology: HostTopology) -> int | None:
    """The guest NUMA cell that is on an endpoint's host node; None where that is not clear."""
    nodes = {node for node in _nodes(group, guest, topology) if node is not None}
    if not group.endpoint or len(nodes) != 1:
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
