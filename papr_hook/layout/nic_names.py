"""Network interface names in the guest: predict those that udev gives, and find those that a layout changes.

The names are those of systemd's src/udev/udev-builtin-net_id.c: ID_NET_NAME_PATH, which udev uses where there is no
onboard index and no hotplug slot number. A pseries guest has neither: it has no ACPI, and rpaphp names slots after
their DRC, such as C1, which is no number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Name, Severity
from ..model import MAX_PHBS, Device, Guest, HostTopology, Layout, PciAddress


@dataclass(frozen=True)
class NicMove:
    """A network interface that a layout gives another PCI address in the guest.

    Attributes:
        device: The interface, as the domain XML has it before the layout.
        mac: Its MAC address, in lower case.
        old: Its address in the guest before the layout, or in the domain XML if it is behind a bridge.
        new: Its address in the guest after the layout.
        old_name: What udev calls it at the old address, or None if it is behind a bridge, whose bus number in the
            guest the domain XML does not have. For a passed-through interface it is a prefix: the name of its port,
            which only the driver knows, follows.
        new_name: The same for the new address.
        is_prefix: Whether the names are prefixes.
    """

    device: Device
    mac: str
    old: PciAddress
    new: PciAddress
    old_name: str | None
    new_name: str
    is_prefix: bool = False

    def diagnostic(self) -> Diagnostic:
        """Return a note about the move."""
        bridge = " behind a bridge" if self.old_name is None else ""
        more = "*" if self.is_prefix else ""
        names = f"from {self.old_name}{more} " if self.old_name is not None else ""
        text = f"moves from {self.old}{bridge} to {self.new} in the guest, where udev's name changes {names}to "
        return Diagnostic(
            Name.NIC_RENAMED, Severity.NOTE, f"{text}{self.new_name}{more}", self.device.name, self.device.line
        )


def predict_name(address: PciAddress, multifunction: bool) -> str:
    """Return the name that udev gives an Ethernet interface.

    The domain is left out if it is 0. The function is left out if it is 0 and the PCI header type does not have the
    multifunction bit.

    Args:
        address: Its address in the guest.
        multifunction: Whether function 0 of its slot has the multifunction bit.
    """
    domain = f"P{address.domain}" if address.domain > 0 else ""
    function = f"f{address.function}" if address.function > 0 or multifunction else ""
    return f"en{domain}p{address.bus}s{address.slot}{function}"


def find_moves(
    guest: Guest, layout: Layout, topology: HostTopology, previous: Guest | None = None
) -> tuple[NicMove, ...]:
    """Return the network interfaces that a layout moves, in the order of the domain XML.

    An interface without a MAC address, or without an address before the layout, has no name that could change.

    Args:
        guest: The guest before the layout.
        layout: Its layout.
        topology: The networks that hand out passed-through interfaces.
        previous: The guest as it was defined before, for interfaces that have no address in the domain XML.
    """
    before, after = _Buses.of(guest), _Buses.of_layout(layout)
    remembered = _locate_all(previous) if previous is not None else {}
    moves = []
    for device, place in zip(guest.devices, layout.addresses):
        if device.mac is None:
            continue
        old = before.locate(device.address, device.multifunction) if device.address else remembered.get(device.mac)
        if old is None:
            continue
        new = after.locate(place, device.multifunction and device.address == place)
        if old != new:
            is_prefix = device.passthrough or device.network in topology.hostdev_networks
            moves.append(NicMove(device, device.mac, old.address, new.address, old.name, new.name or "", is_prefix))
    return tuple(moves)


def link_file(mac: str, name: str) -> str:
    """Return the text of a systemd.link(5) file that gives an interface a name.

    Args:
        mac: Its MAC address.
        name: Its name.
    """
    comment = "# Keeps the name that the interface had before papr-hook moved it."
    return f"{comment}\n[Match]\nMACAddress={mac}\n\n[Link]\nName={name}\n"


def link_file_name(mac: str) -> str:
    """Return the name of the .link file of an interface, which comes before systemd's 99-default.link."""
    return f"10-papr-hook-{mac.replace(':', '')}.link"


@dataclass(frozen=True)
class _Location:
    """Where a device is in the guest, and what udev calls an interface there; see NicMove."""

    address: PciAddress
    name: str | None


@dataclass(frozen=True)
class _Buses:
    """The buses of a guest.

    Attributes:
        targets: The target index of each vPHB, which is its PCI domain in the guest, by its bus.
        shared: The slots of which several functions are used. libvirt sets the multifunction bit of their function 0.
    """

    targets: Mapping[int, int]
    shared: frozenset[tuple[int, int]]

    @classmethod
    def of(cls, guest: Guest) -> _Buses:
        """Return the buses of a guest, with the vPHBs and target indexes that libvirt adds.

        libvirt adds the vPHBs up to the highest bus in use. It gives vPHB 0 target index 0, and each other one
        without a target index the lowest unused one (qemuDomainAssignPCIAddresses in its
        src/qemu/qemu_domain_address.c).
        """
        addresses = tuple(device.address for device in guest.devices if device.address is not None)
        bridges = {bridge.index for bridge in guest.bridges}
        highest = max((address.bus for address in addresses if address.bus < MAX_PHBS), default=0)
        written = {phb.index: phb.target for phb in guest.phbs}
        targets = {index: target for index, target in written.items() if target is not None}
        targets.setdefault(0, 0)
        used = {*targets.values(), *guest.commandline_targets}
        lowest = 0
        for index in sorted({*written, *range(highest + 1)} - bridges - set(targets)):
            while lowest in used:
                lowest += 1
            targets[index] = lowest
            used.add(lowest)
        return cls(targets, _shared_slots(addresses))

    @classmethod
    def of_layout(cls, layout: Layout) -> _Buses:
        """Return the buses of a layout."""
        return cls({phb.index: phb.target or 0 for phb in layout.phbs}, _shared_slots(layout.addresses))

    def locate(self, address: PciAddress, multifunction: bool) -> _Location:
        """Return where a device with an address in the domain XML is in the guest."""
        target = self.targets.get(address.bus)
        if target is None:
            return _Location(address, None)
        seen = PciAddress(target, 0, address.slot, address.function)
        shared = (address.bus, address.slot) in self.shared
        return _Location(seen, predict_name(seen, multifunction or shared))


def _locate_all(guest: Guest) -> Mapping[str, _Location]:
    """Return where each network interface with an address and a MAC address of its own is."""
    buses = _Buses.of(guest)
    macs = Counter(device.mac for device in guest.devices)
    return {
        device.mac: buses.locate(device.address, device.multifunction)
        for device in guest.devices
        if device.mac is not None and macs[device.mac] == 1 and device.address is not None
    }


def _shared_slots(addresses: tuple[PciAddress, ...]) -> frozenset[tuple[int, int]]:
    """Return the bus and slot of each slot of which several functions are used."""
    slots = Counter((address.bus, address.slot) for address in addresses)
    return frozenset(slot for slot, functions in slots.items() if functions > 1)
