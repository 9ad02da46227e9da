"""What a layout does to a guest, device by device, with the reason, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Name
from ..model import Device, Guest, HostTopology, Layout, PciAddress
from . import memlock
from .groups import DeviceGroup, group_devices


@dataclass(frozen=True)
class DeviceChange:
    """What becomes of one device.

    Attributes:
        device: The device, as the domain XML has it before the layout.
        new: Its address after the layout.
        reason: Why it moves or stays, a sentence without its subject.
        name: The diagnostic that makes it move, or None if it stays.
    """

    device: Device
    new: PciAddress
    reason: str
    name: Name | None = None

    @property
    def moves(self) -> bool:
        """Whether the device gets an address that it does not have in the domain XML."""
        return self.device.address != self.new


@dataclass(frozen=True)
class Cost:
    """What a number of vPHBs costs.

    Attributes:
        vphbs: The vPHBs.
        spares: Those without a device.
        locked_memory: The locked-memory limit that libvirt sets, see memlock.limit().
        dma_windows: Host memory for the tables of the 64-bit DMA windows, in KiB: guest memory / 512 for each vPHB
            with VFIO devices, as QEMU's hw/ppc/spapr_rtas_ddw.c makes them.
        without_eeh: The vPHBs, by bus, with several IOMMU groups behind them. EEH does not work there
            (vfio_eeh_container_ok in QEMU's hw/vfio/spapr.c or hw/vfio/common.c).
    """

    vphbs: int
    spares: int
    locked_memory: int | None
    dma_windows: int
    without_eeh: tuple[int, ...]


def explain(
    guest: Guest, layout: Layout, topology: HostTopology, violations: Sequence[Diagnostic]
) -> tuple[DeviceChange, ...]:
    """Return what becomes of each device, in the order of the domain XML.

    Args:
        guest: The guest before the layout.
        layout: Its layout.
        topology: What the host said.
        violations: What check finds about the guest.
    """
    faults = {(violation.device, violation.line): violation for violation in reversed(violations)}
    groups = {member: group for group in group_devices(guest, topology) for member in group.members}
    sharers = _sharers(layout.addresses, groups)
    changes = []
    for position, (device, new) in enumerate(zip(guest.devices, layout.addresses)):
        fault = faults.get((device.name, device.line))
        shared = sharers[new.bus] > 1
        if device.address == new:
            unbridged = fault is not None and fault.name is Name.BEHIND_BRIDGE
            where = ", which takes the place of a bridge" if unbridged else ""
            changes.append(DeviceChange(device, new, _why_it_stays(groups[position], new, shared) + where))
        else:
            reason = fault.text if fault is not None else _why_it_moves(device, shared)
            changes.append(DeviceChange(device, new, reason, fault.name if fault is not None else None))
    return tuple(changes)


def compute_cost(guest: Guest, addresses: Sequence[PciAddress | None], vphbs: int, topology: HostTopology) -> Cost:
    """Return what vPHBs cost with devices at some addresses.

    Args:
        guest: The guest.
        addresses: The address of each of its devices, or None if libvirt would choose it.
        vphbs: The number of vPHBs.
        topology: What the host said.
    """
    passed_through: dict[int, set[object]] = {}
    for device, address in zip(guest.devices, addresses):
        if device.passthrough and not device.is_mdev and address is not None:
            group = topology.iommu_groups.get(device.source) if device.source is not None else None
            passed_through.setdefault(address.bus, set()).add(device if group is None else group)
    used = {address.bus for address in addresses if address is not None}
    return Cost(
        vphbs=vphbs,
        spares=max(vphbs - len(used), 0),
        locked_memory=memlock.limit(guest, topology, vphbs),
        dma_windows=len(passed_through) * (guest.memory.maximum // 512),
        without_eeh=tuple(sorted(bus for bus, groups in passed_through.items() if len(groups) > 1)),
    )


def _sharers(addresses: Sequence[PciAddress], groups: Mapping[int, DeviceGroup]) -> Mapping[int, int]:
    """Return how many device groups are on each bus."""
    on_bus: dict[int, set[DeviceGroup]] = {}
    for position, address in enumerate(addresses):
        on_bus.setdefault(address.bus, set()).add(groups[position])
    return {bus: len(there) for bus, there in on_bus.items()}


def _why_it_stays(group: DeviceGroup, address: PciAddress, shared: bool) -> str:
    if shared:
        return f"shares vPHB {address.bus}, because there are more devices than vPHBs"
    if group.endpoint and group.iommu_group is not None:
        return f"is on vPHB {address.bus} with nothing but its endpoint, IOMMU group {group.iommu_group}"
    return f"is alone on vPHB {address.bus}"


def _why_it_moves(device: Device, shared: bool) -> str:
    if device.line is None:
        return "would be added by libvirt, which chooses an address next to other devices"
    if shared:
        return "shares a vPHB, because there are more devices than vPHBs"
    return "gets a vPHB of its own"
