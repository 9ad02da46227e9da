"""A guest's vPHBs as JSON takes them."""

from __future__ import annotations

from collections.abc import Mapping

from ..layout.groups import group_devices
from ..model import Device, Guest, HostTopology, Phb


def describe_guest(guest: Guest, topology: HostTopology) -> dict[str, object]:
    """Return a guest with its vPHBs and the devices on them.

    Args:
        guest: The guest.
        topology: What the host's sysfs has about its passed-through devices.
    """
    groups = {member: group for group in group_devices(guest, topology) for member in group.members}
    targets = {phb.index: phb.target for phb in guest.phbs}
    devices = [
        _describe_device(device, groups[position].iommu_group, targets, topology)
        for position, device in enumerate(guest.devices)
    ]
    return {
        "name": guest.name,
        "vphbs": [_describe_phb(phb) for phb in sorted(guest.phbs, key=lambda phb: phb.index)],
        "bridges": [
            {"bus": bridge.index, "model": bridge.model, "line": bridge.line, "address": _text(bridge.address)}
            for bridge in guest.bridges
        ],
        "devices": devices,
    }


def drc_index(target: int | None) -> str | None:
    """Return the DRC index of a vPHB, 0x20000000 and its target index (QEMU hw/ppc/spapr_drc.c), or None."""
    return None if target is None else f"0x{0x20000000 | target:08x}"


def _describe_phb(phb: Phb) -> dict[str, object]:
    return {
        "bus": phb.index,
        "target_index": phb.target,
        "drc_index": drc_index(phb.target),
        "numa_cell": phb.node,
        "line": phb.line,
    }


def _describe_device(
    device: Device, iommu_group: int | None, targets: Mapping[int, int | None], topology: HostTopology
) -> dict[str, object]:
    at = device.address
    target = targets.get(at.bus) if at is not None else None
    host = topology.devices.get(device.source) if device.source is not None else None
    return {
        "device": device.name,
        "line": device.line,
        "model": device.model,
        "backing": device.backing,
        "bus": at.bus if at is not None else None,
        "address": _text(at),
        "guest_address": f"{target:04x}:00:{at.slot:02x}.{at.function:x}" if at and target is not None else None,
        "host_address": _text(device.source),
        "iommu_group": iommu_group,
        "numa_node": host.node if host is not None else None,
        "driver": host.driver if host is not None else None,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
