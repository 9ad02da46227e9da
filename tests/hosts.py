"""A host's IOMMU groups as sysfs shows them, for machines that have none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GROUPS = {
    "0001:01:00.0": 5,
    "0001:01:00.1": 5,
    "0001:01:00.2": 5,
    "0002:01:00.0": 7,
    "0002:01:00.1": 8,
}
"""The host of the golden pairs: a card of three functions in one group, and two on their own."""


def write_sysfs(root: Path, groups: Mapping[str, int]) -> Path:
    """A sysfs tree with PCI devices, by address, and their IOMMU groups. Returns its root."""
    for address, group in groups.items():
        device = root / "devices" / f"pci{address[:7]}" / address
        device.mkdir(parents=True)
        members = root / "kernel/iommu_groups" / str(group) / "devices"
        members.mkdir(parents=True, exist_ok=True)
        (members / address).symlink_to(device)
        (device / "iommu_group").symlink_to(members.parent)
        bus = root / "bus/pci/devices"
        bus.mkdir(parents=True, exist_ok=True)
        (bus / address).symlink_to(device)
    return root
