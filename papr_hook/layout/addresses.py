"""Slots and functions on the vPHBs that the groups were assigned to, and the vPHBs themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..diagnostics import Name, error
from ..errors import LayoutError
from ..model import MAX_SLOT, PciAddress, Phb
from .assign import Assignment
from .current import CurrentLayout
from .endpoints import numa_cell
from .groups import DeviceGroup

_FUNCTIONS = 8
"""Functions that a slot has."""

_NO_SOURCE = PciAddress(domain=0xFFFFFFFF)


def make_phbs(current: CurrentLayout, assignment: Assignment) -> tuple[Phb, ...]:
    """Return the vPHBs that there will be, by index."""
    written = {phb.index: phb for phb in current.guest.phbs}
    phbs = []
    for index in range(assignment.count):
        target = assignment.targets[index]
        phb = written.get(index) or Phb(index, target)
        node = _node(current, assignment, phb)
        is_same = phb.target == target and phb.node == node
        phbs.append(phb if is_same else replace(phb, target=target, node=node))
    return tuple(phbs)


def _node(current: CurrentLayout, assignment: Assignment, phb: Phb) -> int | None:
    """Return the NUMA cell of a vPHB: what the domain XML says of it or of its group, else its endpoint's.

    A cell that a group takes along is not left behind. vPHB 0 cannot have one (virDomainControllerDefValidate in
    libvirt's src/conf/domain_validate.c).
    """
    groups = assignment.groups.get(phb.index, ())
    given = assignment.nodes.get(phb.index)
    if given is None and phb.node is not None:
        stays = any(group in assignment.kept for group in groups) or phb.index in assignment.capacity.reserved
        given = phb.node if stays else None
    if given is None and phb.index != 0 and len(groups) == 1:
        return numa_cell(groups[0], current.guest, current.topology)
    return given


def make_addresses(current: CurrentLayout, assignment: Assignment) -> tuple[PciAddress, ...]:
    """Return the address of each of the guest's devices, in their order.

    Raises:
        LayoutError: An endpoint needs more slots than a vPHB has.
    """
    addresses: dict[int, PciAddress] = {}
    for bus, groups in assignment.groups.items():
        taken: set[int] = set()
        for group in sorted(groups, key=lambda group: group not in assignment.kept):
            fixed = _fixed_addresses(current, assignment, group, bus)
            if group is assignment.owner and bus == 0:
                fixed = _nic_addresses(current, group, fixed, taken if group not in assignment.kept else set())
            addresses.update(fixed)
            taken |= {address.slot for address in fixed.values()}
        for group in groups:
            addresses.update(_new_addresses(current, group, bus, taken, addresses))
    return tuple(addresses[position] for position in range(len(current.guest.devices)))


def _fixed_addresses(
    current: CurrentLayout, assignment: Assignment, group: DeviceGroup, bus: int
) -> dict[int, PciAddress]:
    """Return the addresses that a group has already, or goes back to."""
    if group in assignment.kept:
        devices = ((member, current.guest.devices[member].address) for member in group.members)
        return {member: address for member, address in devices if address is not None}
    if group in assignment.places:
        place = assignment.places[group]
        if place.bus == bus:
            return dict(place.addresses)
        return {member: replace(address, bus=bus) for member, address in place.addresses.items()}
    return {}


def _nic_addresses(
    current: CurrentLayout, group: DeviceGroup, fixed: dict[int, PciAddress], taken: set[int]
) -> dict[int, PciAddress]:
    """Return the addresses of the NIC that vPHB 0 belongs to.

    Args:
        current: The guest.
        group: The NIC, with what shares its slot.
        fixed: The addresses that it has or goes back to.
        taken: Slots of vPHB 0 that other devices keep.
    """
    closed = taken | current.guest.commandline_slots
    if fixed and not {address.slot for address in fixed.values()} & closed:
        return fixed
    functions = _choose_functions(current, list(group.members), set())
    slot = first_nic_slot(current, fixed.values())
    if slot in taken:
        slot = _free_slot(taken, 0) or slot
    return {member: PciAddress(slot=slot, function=function) for member, function in functions.items()}


def first_nic_slot(current: CurrentLayout, own: Iterable[PciAddress] = ()) -> int:
    """Return the slot of vPHB 0 that libvirt alone would give the first emulated NIC.

    It is the lowest that no address in the domain XML takes, after the bridges and then the filesystems without an
    address took theirs; slot 1 if all are taken. An address behind a bridge counts as none.

    Args:
        current: The guest.
        own: The NIC's own addresses, which do not count.
    """
    guest = current.guest
    taken = {device.address for device in guest.devices if device.address is not None} - set(own)
    taken |= {bridge.address for bridge in guest.bridges if bridge.address is not None}
    slots = {at.slot for at in taken if at.domain == 0 and at.bus == 0 and 0 not in current.bridge_indexes}
    slots |= guest.commandline_slots
    free = [slot for slot in range(1, MAX_SLOT + 1) if slot not in slots]
    bridges = sum(_lacks_address(bridge.address, current) and bridge.index != 0 for bridge in guest.bridges)
    filesystems = sum(
        device.kind == "filesystem" and _lacks_address(device.address, current) for device in guest.devices
    )
    before = bridges + filesystems
    return free[before] if before < len(free) else 1


def _lacks_address(address: PciAddress | None, current: CurrentLayout) -> bool:
    return address is None or address.bus in current.bridge_indexes


def _new_addresses(
    current: CurrentLayout,
    group: DeviceGroup,
    bus: int,
    taken: set[int],
    addresses: Mapping[int, PciAddress],
) -> dict[int, PciAddress]:
    """Return addresses on a bus for the members of a group that have none there yet.

    Args:
        current: The guest.
        group: The group.
        bus: Its bus.
        taken: The slots of the bus that are taken; new ones are added.
        addresses: The addresses that devices have already.
    """
    missing = [member for member in group.members if member not in addresses]
    if not missing:
        return {}
    placed = {member: addresses[member] for member in group.members if member in addresses}
    if placed and not group.endpoint:
        return _join_slot(current, missing, next(iter(placed.values())), addresses)
    found: dict[int, PciAddress] = {}
    for card in _cards(current, group, missing):
        slot = _free_slot(taken, _slot_before(current, card, {**placed, **found}) if group.endpoint else 0)
        if slot is None:
            text = f"and its endpoint need more than {MAX_SLOT} slots"
            raise LayoutError(error(Name.LARGE_ENDPOINT, text, current.guest.devices[card[0]].name))
        taken.add(slot)
        functions = _choose_functions(current, card, set())
        found.update({member: PciAddress(bus=bus, slot=slot, function=functions[member]) for member in card})
    return found


def _join_slot(
    current: CurrentLayout, missing: list[int], beside: PciAddress, addresses: Mapping[int, PciAddress]
) -> dict[int, PciAddress]:
    """Return addresses in the slot of another member, where devices of another group may be, too."""
    bus, slot = beside.bus, beside.slot
    used = {address.function for address in addresses.values() if address.bus == bus and address.slot == slot}
    functions = _choose_functions(current, missing, used)
    return {member: PciAddress(bus=bus, slot=slot, function=functions[member]) for member in missing}


def _free_slot(taken: set[int], after: int) -> int | None:
    """Return the lowest free slot after another, else the lowest free slot, or None if all are taken."""
    slots = (*range(after + 1, MAX_SLOT + 1), *range(1, after + 1))
    return next((slot for slot in slots if slot not in taken), None)


def _slot_before(current: CurrentLayout, card: list[int], placed: Mapping[int, PciAddress]) -> int:
    """Return the highest slot of the members that come before a card in host function order, 0 if there are none."""
    own = _host_order(current, card)
    return max((at.slot for member, at in placed.items() if _host_order(current, [member]) < own), default=0)


def _host_order(current: CurrentLayout, card: Iterable[int]) -> PciAddress:
    """Sort key of the members of an endpoint: the host's address, and last what has none."""
    return min(current.guest.devices[member].source or _NO_SOURCE for member in card)


def _cards(current: CurrentLayout, group: DeviceGroup, members: list[int]) -> list[list[int]]:
    """Return the members that share a slot: all of an emulated group, what the domain XML has in one slot.

    libvirt cannot detach a device from a multifunction slot, so the functions of a host card get a slot each unless
    the domain XML says otherwise.
    """
    if not group.endpoint:
        return [members]
    cards: dict[object, list[int]] = {}
    for member in members:
        address = current.guest.devices[member].address
        key = (address.domain, address.bus, address.slot) if address else member
        cards.setdefault(key, []).append(member)
    return sorted(cards.values(), key=lambda card: _host_order(current, card))


def _choose_functions(current: CurrentLayout, card: list[int], used: set[int]) -> dict[int, int]:
    """Return the function of each member of a slot; one of them is 0, because guests look there first.

    Args:
        current: The guest.
        card: The members.
        used: The functions of the slot that are taken already.
    """
    devices = {member: current.guest.devices[member] for member in card}
    if any(device.usb2_group is not None for device in devices.values()):
        found: dict[int, int] = {}
        for member, device in devices.items():
            choices = (device.usb2_function, *range(_FUNCTIONS))
            free = [number for number in choices if number not in {*used, *found.values()}]
            if not free:
                raise LayoutError(error(Name.SPLIT_SLOT, "finds no free function in the slot of its set", device.name))
            found[member] = free[0]
        return found
    wanted = {member: device.address.function if device.address else 0 for member, device in devices.items()}
    if 0 in wanted.values():
        return wanted
    return {member: number for number, member in enumerate(sorted(card, key=wanted.__getitem__))}
