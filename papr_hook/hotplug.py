"""A place for a device that is attached: a device and the definitions that it goes into, to a device with an address.

Pure but for what engine.judge reads of the host. The device is put into each definition, so that whatever ties it to
the devices there (an IOMMU group, a USB 2 set) is found in the way in which a layout finds it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lxml import etree

from . import pipeline
from .config import Config
from .domainxml import pci_devices
from .domainxml.text import parse, serialise
from .domainxml.values import write_address
from .errors import PaprHookError
from .layout import check, endpoints
from .layout.compute import reserved_buses, vphb_0_last
from .layout.groups import DeviceGroup, group_devices
from .model import MAX_PHBS, MAX_SLOT, Device, Guest, PciAddress


class NoRoomError(PaprHookError):
    """There is no vPHB for a device."""


@dataclass(frozen=True)
class View:
    """One definition with the device in it.

    unit: what the device belongs to; position: which of the guest's devices it is; units: all of them; running: it
    is the definition of a running guest, which gets no more vPHBs; complies: the definition did, without the device;
    missing: what of the device's endpoint is not passed through with it.
    """

    guest: Guest
    position: int
    group: DeviceGroup
    groups: tuple[DeviceGroup, ...]
    running: bool
    complies: bool
    missing: endpoints.Missing | None

    @property
    def device(self) -> Device:
        """The device itself."""
        return self.guest.devices[self.position]

    @property
    def partners(self) -> tuple[PciAddress, ...]:
        """The addresses of the others of its unit."""
        return tuple(self._addresses(self.group))

    @property
    def empty(self) -> frozenset[int]:
        """The vPHBs that hold nothing; libvirt adds those that a definition for the next start does not have yet.

        libvirt does so up to the bus of an address (virDomainPCIAddressSetGrow in its src/conf/domain_addr.c).
        """
        used = {address.bus for group in self.groups for address in self._addresses(group)}
        used |= {bridge.address.bus for bridge in self.guest.bridges if bridge.address is not None}
        there = {phb.index for phb in self.guest.phbs}
        if not self.running and not self.guest.last_occupied:
            there |= set(range(max(there, default=0) + 1, MAX_PHBS - len(self.guest.taken_targets)))
        return frozenset(there - used - reserved_buses(self.guest) - self.guest.used_by_commandline)

    def taken_slots(self, bus: int) -> set[int]:
        """The slots of a vPHB that something is in."""
        return {device.address.slot for device in self.guest.devices if device.address and device.address.bus == bus}

    def alone_on(self, bus: int) -> bool:
        """Whether a vPHB holds nothing but the device's own unit, or nothing at all."""
        own = {partner.bus for partner in self.partners}
        others = (address.bus for group in self.groups if group != self.group for address in self._addresses(group))
        return bus in self.empty or (bus in own and bus not in others)

    def crowd(self, bus: int) -> int | None:
        """How many emulated devices share a vPHB that the device may join; None where it may not."""
        there = [group for group in self.groups if any(address.bus == bus for address in self._addresses(group))]
        closed = reserved_buses(self.guest) | self.guest.used_by_commandline
        if not there or bus in closed or any(group.endpoint for group in there):
            return None
        return len(there)

    def _addresses(self, group: DeviceGroup) -> Iterable[PciAddress]:
        found = (self.guest.devices[member].address for member in group.members if member != self.position)
        return (address for address in found if address is not None)


def may_need_place(device: bytes) -> bool:
    """Whether a device may sit on PCI, and has no address that says where. Raises InputError."""
    root = parse(device).getroot()
    kind = pci_devices.kind_of(root)
    return kind != "controller pci" and pci_devices.sits_on_pci(root)


def where(device: bytes) -> str:
    """How a message names the place that a device was given."""
    at = pci_devices.address_of(parse(device).getroot())
    assert at is not None
    return f"vPHB {int(at.get('bus', ''), 16)} slot {int(at.get('slot', ''), 16)}"


def unread_networks(device: bytes, definitions: Sequence[bytes], config: Config) -> frozenset[str]:
    """The networks of a device and of a guest's definitions whose files may not be read. Raises InputError."""
    tree = parse(device)
    found = (_combined(tree.getroot(), definition) for definition in definitions)
    known = [pipeline.analyze(_bytes(one), config).topology.unread_networks for one in found if one is not None]
    return frozenset().union(*known)


def place(device: bytes, definitions: Sequence[bytes], config: Config, networks: frozenset[str] = frozenset()) -> bytes:
    """Give a device an address.

    device: its XML; definitions: of the guest, all that it is going to be in; settings: the host's; networks: those
    that are known to hand out host devices, beside what the host's files tell. Returns the very
    bytes where there is nothing to do: it has an address, does not sit on PCI, the guest is none to lay out. Raises
    NoRoomError when the guest has no vPHB for it, InputError for what libvirt would not take either, and another
    PaprHookError when the guest runs with a layout that never had room for it.
    """
    tree = parse(device)
    views = _views(tree, definitions, config, networks)
    if not views or len(views) < len(definitions):
        return device
    shared = views[0].device.companions is not None
    write_address(tree.getroot(), _address(views, config), shared)
    return serialise(tree, device)


def missing(device: bytes, definitions: Sequence[bytes], config: Config) -> str | None:
    """What of a host device's endpoint would not be passed through, once it is attached.

    device: its XML, without an address; definitions, settings: as place() has them. Returns a line for a person; None
    where the endpoint is whole, or the device is none of a host's. An endpoint comes one device at a time, whatever
    incomplete_pe says of a definition: so that is no reason to refuse the attach. Raises InputError.
    """
    parts = [view.missing for view in _views(parse(device), definitions, config, frozenset())]
    return next((f"{part.device.name} {part}" for part in parts if part is not None), None)


def _views(
    device: etree._ElementTree, definitions: Sequence[bytes], config: Config, networks: frozenset[str]
) -> list[View]:
    views = (_view(device.getroot(), definition, config, networks) for definition in definitions)
    return [view for view in views if view is not None]


def _combined(device: etree._Element, definition: bytes) -> etree._ElementTree | None:
    """A definition with the device as its last; None where it has no devices."""
    tree = parse(definition)
    holder = tree.getroot().find("devices")
    if holder is None:
        return None
    added = copy.deepcopy(device)
    added.tail = None
    holder.append(added)
    return tree


def _view(device: etree._Element, definition: bytes, config: Config, networks: frozenset[str]) -> View | None:
    """The device in a definition; None where it needs no place there."""
    tree = _combined(device, definition)
    if tree is None:
        return None
    analysis = pipeline.analyze(_bytes(tree), config, hostdev_networks=networks)
    holder = analysis.domain.tree.getroot().find("devices")
    if analysis.guest is None or holder is None:
        return None
    new = holder[-1]
    position = next((n for n, element in enumerate(analysis.domain.elements) if element is new), None)
    if position is None or analysis.guest.devices[position].address is not None:
        return None
    groups = group_devices(analysis.guest, analysis.topology)
    group = next(group for group in groups if position in group.members)
    parts = endpoints.missing_members(analysis.guest, analysis.topology) if group.iommu_group is not None else ()
    return View(
        guest=analysis.guest,
        position=position,
        group=group,
        groups=groups,
        running=tree.getroot().get("id") is not None,
        complies=check.complies(pipeline.analyze(definition, config, hostdev_networks=networks).violations()),
        missing=next((part for part in parts if part.iommu_group == group.iommu_group), None),
    )


def _bytes(tree: etree._ElementTree) -> bytes:
    data = etree.tostring(tree)
    assert isinstance(data, bytes)
    return data


def _address(views: Sequence[View], config: Config) -> PciAddress:
    """The address that the device gets in all definitions."""
    device = views[0].device
    partners = {partner for view in views for partner in view.partners}
    buses = {partner.bus for partner in partners}
    if len(buses) == 1 and all(view.alone_on(bus) for bus in buses for view in views):
        return _beside(views, partners)
    empty = frozenset.intersection(*(view.empty for view in views))
    if empty and not buses:
        return PciAddress(bus=min(empty, key=vphb_0_last), slot=1)
    if not all(view.complies for view in views):
        raise PaprHookError(f"{device} has no place of its own in a guest that was not laid out before it was started")
    if buses:
        raise NoRoomError(f"the devices that {device} belongs to have no vPHB to themselves; {_CURE}")
    return _shared(views, config)


_CURE = "the guest's next start gives it new ones"


def _beside(views: Sequence[View], partners: set[PciAddress]) -> PciAddress:
    """The address on the vPHB of the others: the set's own slot, or a slot of its own on an endpoint's vPHB."""
    device = views[0].device
    partner = min(partners)
    if views[0].group.endpoint:
        return PciAddress(bus=partner.bus, slot=_free_slot(views, partner.bus))
    if any(known.function == device.function for known in partners):
        raise NoRoomError(f"{device}: function {device.function} of its slot is taken")
    return PciAddress(bus=partner.bus, slot=partner.slot, function=device.function)


def _free_slot(views: Sequence[View], bus: int) -> int:
    taken = {slot for view in views for slot in view.taken_slots(bus)}
    slot = next((slot for slot in range(1, MAX_SLOT + 1) if slot not in taken), None)
    if slot is None:
        raise NoRoomError(f"vPHB {bus} has no free slot")
    return slot


def _shared(views: Sequence[View], config: Config) -> PciAddress:
    """A place next to other emulated devices, if the host's policy is to share."""
    device = views[0].device
    if config.attach_without_spare == "share" and not views[0].group.endpoint:
        crowds = {bus: [view.crowd(bus) for view in views] for bus in range(MAX_PHBS)}
        sizes = {bus: max(n for n in found if n is not None) for bus, found in crowds.items() if None not in found}
        if sizes:
            bus = min(sizes, key=lambda bus: (sizes[bus], vphb_0_last(bus)))
            return PciAddress(bus=bus, slot=_free_slot(views, bus))
    raise NoRoomError(f"no empty vPHB is left for {device}; {_CURE}, and detaching a device frees its own")
