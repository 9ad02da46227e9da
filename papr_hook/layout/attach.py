"""Choose the PCI address of a device that is attached to a guest.

Pure: the guest comes in once for each domain XML that the device goes into, an address comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..diagnostics import Diagnostic, Name, warning
from ..errors import PaprHookError
from ..model import MAX_PHBS, MAX_SLOT, Device, Guest, HostTopology, PciAddress
from . import check, endpoints
from .capacity import reserved_buses, vphb_0_last
from .groups import DeviceGroup, group_devices
from .spares import order_spares, spare_use

_REMEDY = "restart the guest to get new spares"


class AttachRefusedError(PaprHookError):
    """The attach cannot work, and libvirt is not asked."""


class NoSpareError(AttachRefusedError):
    """The guest has no vPHB for an attached device."""


class BlockedEndpointError(AttachRefusedError):
    """A host driver keeps QEMU from using the endpoint of an attached device."""


class NeverLaidOutError(PaprHookError):
    """The guest was started with a layout that has no vPHB for an attached device."""


@dataclass(frozen=True)
class AttachView:
    """A guest as one domain XML has it, with the attached device among its devices.

    Attributes:
        guest: The guest with the device, which has no address.
        position: The index of the device in guest.devices.
        topology: The host topology of the guest's devices, the attached one included.
        running: Whether the domain XML is that of a running guest, which gets no further vPHBs.
    """

    guest: Guest
    position: int
    topology: HostTopology
    running: bool

    @property
    def device(self) -> Device:
        """Return the attached device."""
        return self.guest.devices[self.position]

    @cached_property
    def groups(self) -> tuple[DeviceGroup, ...]:
        """Return all device groups of the guest."""
        return group_devices(self.guest, self.topology)

    @cached_property
    def group(self) -> DeviceGroup:
        """Return the group that the device belongs to."""
        return next(group for group in self.groups if self.position in group.members)

    @property
    def group_addresses(self) -> frozenset[PciAddress]:
        """Return the addresses of the other devices of the group."""
        return frozenset(self._addresses(self.group))

    @cached_property
    def empty_buses(self) -> frozenset[int]:
        """Return the vPHBs that may take the device and hold nothing.

        libvirt adds missing ones to the domain XML of the next start, up to the bus of an address
        (virDomainPCIAddressSetGrow in its src/conf/domain_addr.c). None can have the QEMU id of a device of the
        qemu:commandline.
        """
        used = {address.bus for group in self.groups for address in self._addresses(group)}
        used |= {bridge.address.bus for bridge in self.guest.bridges if bridge.address is not None}
        indexes = {phb.index for phb in self.guest.phbs}
        if not self.running and not self.guest.commandline_uses_last_bus:
            first = max(indexes, default=0) + 1
            clashes = (index for index in self.guest.commandline_indexes if index >= first)
            indexes |= set(range(first, min([MAX_PHBS - len(self.guest.commandline_targets), *clashes])))
        return frozenset(indexes - used - self._closed_buses)

    @property
    def missing(self) -> endpoints.Missing | None:
        """Return the members of the device's endpoint that are still not passed through, or None if it is complete."""
        if self.group.iommu_group is None:
            return None
        found = endpoints.missing_members(self.guest, self.topology)
        return next((part for part in found if part.iommu_group == self.group.iommu_group), None)

    def choose_spare(self, empty: frozenset[int]) -> int:
        """Return the one of some empty vPHBs that is meant for the device."""
        use = spare_use(self.group)
        return order_spares(empty, use, self.guest, self.topology, self.position)[0]

    def used_slots(self, bus: int) -> set[int]:
        """Return the slots of a vPHB that are in use."""
        return {device.address.slot for device in self.guest.devices if device.address and device.address.bus == bus}

    def is_exclusive(self, bus: int) -> bool:
        """Return whether a vPHB holds nothing but the device's own group, or nothing at all."""
        own = {address.bus for address in self.group_addresses}
        others = (address.bus for group in self.groups if group != self.group for address in self._addresses(group))
        return bus in self.empty_buses or (bus in own and bus not in others)

    def count_sharers(self, bus: int) -> int | None:
        """Return how many emulated devices share a vPHB, or None if the device may not join them."""
        groups = [group for group in self.groups if any(address.bus == bus for address in self._addresses(group))]
        is_vphb = any(phb.index == bus for phb in self.guest.phbs)
        if not groups or not is_vphb or bus in self._closed_buses or any(group.endpoint for group in groups):
            return None
        return len(groups)

    def complies_without_device(self) -> bool:
        """Return whether the guest complies as it is before the attach.

        The rules for incomplete endpoints do not count: an endpoint is attached one member at a time.
        """
        others = (device for position, device in enumerate(self.guest.devices) if position != self.position)
        before = replace(self.guest, devices=tuple(others))
        return check.complies(check.check(before, 0, self.topology))

    @property
    def _closed_buses(self) -> frozenset[int]:
        return reserved_buses(self.guest) | self.guest.used_by_commandline

    def _addresses(self, group: DeviceGroup) -> Iterator[PciAddress]:
        for member in group.members:
            address = self.guest.devices[member].address
            if member != self.position and address is not None:
                yield address


def assign_address(views: Sequence[AttachView], share: bool) -> PciAddress:
    """Return the address that an attached device gets in all of its domain XMLs.

    Args:
        views: The guest with the device, at least once; the running guest comes first and says which spare is meant.
        share: Whether an emulated device may join others on their vPHB when no empty one is left.

    Raises:
        NoSpareError: No vPHB may take the device.
        NeverLaidOutError: The same, in a guest that did not comply before the attach.
    """
    addresses = frozenset().union(*(view.group_addresses for view in views))
    buses = {address.bus for address in addresses}
    if len(buses) == 1 and all(view.is_exclusive(bus) for bus in buses for view in views):
        return _join_group(views, addresses)
    empty = frozenset.intersection(*(view.empty_buses for view in views))
    if empty and not buses:
        return PciAddress(bus=views[0].choose_spare(empty), slot=1)
    if share and not buses and not views[0].group.endpoint:
        shared = _share(views)
        if shared is not None:
            return shared
    raise _refusal(views, bool(buses))


def find_missing(views: Sequence[AttachView]) -> Diagnostic | None:
    """Return a warning about members of an attached device's endpoint that are still not passed through, or None.

    Args:
        views: The guest with the device, at least once.

    Raises:
        BlockedEndpointError: The guest runs, and a missing member is bound to a driver of the host.
    """
    missing = [(view, view.missing) for view in views]
    parts = [(view, part) for view, part in missing if part is not None]
    for view, part in parts:
        if view.running and part.blocking:
            remedy = f": run {part.detach_commands} first" if part.detach_commands else ""
            raise BlockedEndpointError(f"{view.device} {part}, so QEMU cannot use the group{remedy}")
    if not parts:
        return None
    _, part = parts[0]
    text = f"{part}; attach these as well"
    return warning(Name.INCOMPLETE_ENDPOINT, text, part.device.name, part.device.line)


def _join_group(views: Sequence[AttachView], addresses: frozenset[PciAddress]) -> PciAddress:
    """Return an address beside the rest of the group: in its slot, or in a slot of its own in an endpoint."""
    device = views[0].device
    first = min(addresses)
    if views[0].group.endpoint:
        return PciAddress(bus=first.bus, slot=_find_free_slot(views, first.bus))
    if any(address.function == device.usb2_function for address in addresses):
        raise NoSpareError(f"{device}: function {device.usb2_function} of its slot is in use")
    return PciAddress(bus=first.bus, slot=first.slot, function=device.usb2_function)


def _find_free_slot(views: Sequence[AttachView], bus: int) -> int:
    used = {slot for view in views for slot in view.used_slots(bus)}
    slot = next((slot for slot in range(1, MAX_SLOT + 1) if slot not in used), None)
    if slot is None:
        raise NoSpareError(f"vPHB {bus} has no free slot")
    return slot


def _share(views: Sequence[AttachView]) -> PciAddress | None:
    """Return an address on the least loaded vPHB of emulated devices, or None if there is none."""
    loads: dict[int, int] = {}
    for bus in range(MAX_PHBS):
        sharers = [view.count_sharers(bus) for view in views]
        counts = [count for count in sharers if count is not None]
        if len(counts) == len(sharers):
            loads[bus] = max(counts)
    if not loads:
        return None
    bus = min(loads, key=lambda bus: (loads[bus], vphb_0_last(bus)))
    return PciAddress(bus=bus, slot=_find_free_slot(views, bus))


def _refusal(views: Sequence[AttachView], has_partners: bool) -> PaprHookError:
    device = views[0].device
    if not all(view.complies_without_device() for view in views):
        return NeverLaidOutError(f"{device} cannot get its own vPHB: the guest was started with a non-compliant layout")
    if has_partners:
        return NoSpareError(f"the other devices of {device}'s group share their vPHB with other devices; {_REMEDY}")
    return NoSpareError(f"no empty vPHB is left for {device}; detach another device, or {_REMEDY}")
