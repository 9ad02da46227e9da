"""The layout that a guest's domain XML has already: which device groups are on which bus."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..model import MAX_PHBS, MAX_SLOT, Device, Guest, HostTopology, PciAddress
from ..records import Record
from .groups import DeviceGroup, group_devices


@dataclass(frozen=True, eq=False, repr=False)
class CurrentLayout(Record):
    """A guest with its device groups.

    Attributes:
        guest: The guest as its domain XML describes it.
        topology: What is known about its host.
    """

    guest: Guest
    topology: HostTopology

    @cached_property
    def groups(self) -> tuple[DeviceGroup, ...]:
        """All device groups, in the order of their first members."""
        return group_devices(self.guest, self.topology)

    @cached_property
    def roots(self) -> frozenset[int]:
        """The indexes of the pci-roots that a guest can have."""
        return frozenset(phb.index for phb in self.guest.phbs if phb.index < MAX_PHBS)

    @cached_property
    def bridge_indexes(self) -> frozenset[int]:
        """The buses behind the PCI controllers that are not pci-roots."""
        return frozenset(bridge.index for bridge in self.guest.bridges)

    @cached_property
    def bridged_buses(self) -> frozenset[int]:
        """The buses that those controllers are plugged into."""
        return frozenset(bridge.address.bus for bridge in self.guest.bridges if bridge.address is not None)

    @cached_property
    def on_bus(self) -> dict[int, list[DeviceGroup]]:
        """Map each bus to the groups that have a usable address there."""
        found: dict[int, list[DeviceGroup]] = {}
        for group in self.groups:
            for bus in sorted({address.bus for address in self.addresses(group) if self.is_usable(address)}):
                found.setdefault(bus, []).append(group)
        return found

    @cached_property
    def highest_bus(self) -> int:
        """The highest bus that is in use or has a pci-root; libvirt adds all pci-roots up to it."""
        return max({0, *self.roots, *self.on_bus})

    def is_usable(self, address: PciAddress) -> bool:
        """Return whether an address is in a slot of a vPHB that exists, or that libvirt would add by itself.

        libvirt adds pci-roots up to the highest bus of an address (virDomainPCIAddressSetGrow in its
        src/conf/domain_addr.c).
        """
        return (
            address.domain == 0
            and 1 <= address.slot <= MAX_SLOT
            and address.bus not in self.bridge_indexes
            and (address.bus in self.roots or address.bus < MAX_PHBS - len(self.guest.commandline_targets))
        )

    def members(self, group: DeviceGroup) -> list[Device]:
        """Return the devices of a group."""
        return [self.guest.devices[member] for member in group.members]

    def addresses(self, group: DeviceGroup) -> list[PciAddress]:
        """Return the addresses that the devices of a group have."""
        return [device.address for device in self.members(group) if device.address is not None]

    def home(self, group: DeviceGroup) -> int | None:
        """Return the bus that a group is wholly on, or None if it is nowhere or on several.

        A device without an address belongs where the others of its group are. A group other than an endpoint has to
        be in one slot.
        """
        addresses = self.addresses(group)
        places = {(address.bus, 0 if group.endpoint else address.slot) for address in addresses}
        if len(places) != 1 or not all(map(self.is_usable, addresses)):
            return None
        return addresses[0].bus

    @cached_property
    def nics(self) -> tuple[DeviceGroup, ...]:
        """The emulated NICs, in document order."""
        return tuple(group for group in self.groups if group.is_nic)

    @cached_property
    def nic_on_bus_0(self) -> DeviceGroup | None:
        """The first emulated NIC with an address on vPHB 0, or None: vPHB 0 is its own."""
        return next((group for group in self.on_bus.get(0, ()) if group.is_nic and self.home(group) == 0), None)
