"""How many vPHBs a guest can have, and how its device groups fit onto them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Name, error
from ..model import MAX_PHBS, MAX_SLOT, Guest, Phb
from ..records import Record
from .current import CurrentLayout


@dataclass(frozen=True, eq=False, repr=False)
class Capacity(Record):
    """The vPHBs that a guest can have, and the device groups that need one.

    Attributes:
        ceiling: The vPHBs that the domain XML may have.
        reserved: Buses that the layout puts nothing on, except an emulated NIC on vPHB 0.
        reserved_tail: 1 if the last vPHB must stay empty, because QEMU puts devices there that name no bus in JSON;
            else 0.
        endpoints: The number of endpoints.
        emulated: The number of other groups.
        nic_on_0: Whether vPHB 0 belongs to an emulated NIC.
        min_spares: The spares that stay when emulated devices begin to share, 0 or 1.
    """

    ceiling: int
    reserved: frozenset[int]
    reserved_tail: int
    endpoints: int
    emulated: int
    nic_on_0: bool
    min_spares: int

    @property
    def usable(self) -> int:
        """The vPHBs that may hold a group or be a spare."""
        return self.ceiling - len(self.reserved) - self.reserved_tail

    @property
    def needed(self) -> int:
        """The usable vPHBs that the groups need if each gets its own."""
        return self.endpoints + self.emulated - (self.nic_on_0 and 0 in self.reserved)

    @property
    def fits_exclusively(self) -> bool:
        """Whether each group can have its own vPHB."""
        return self.needed + self.min_spares <= self.usable

    @property
    def others(self) -> int:
        """The emulated groups other than the NIC that vPHB 0 belongs to."""
        return self.emulated - self.nic_on_0

    @property
    def shared_buses(self) -> int:
        """The vPHBs that the other emulated groups share if they have to.

        The last spare goes before the NIC's privacy on vPHB 0.
        """
        for count in (self._left - self.min_spares, self._left):
            if count > 0 and self.others <= count * MAX_SLOT:
                return count
        return max(self._left, 0)

    @property
    def joins_nic(self) -> bool:
        """Whether other emulated groups have to join the NIC on vPHB 0."""
        return self.nic_on_0 and 0 not in self.reserved and self.others > self.shared_buses * MAX_SLOT

    @property
    def shortage(self) -> Diagnostic | None:
        """Why the groups do not fit onto the guest's vPHBs, or None if they do."""
        others = self.others - (MAX_SLOT - 1 if self.joins_nic else 0)
        if self._left < 0 or (self._left == 0 and self.others and not self.joins_nic):
            needed = self.endpoints + bool(self.emulated) + self.ceiling - self.usable
            kinds = " and the emulated devices" if self.emulated else ""
            text = (
                f"{self.endpoints} host endpoints{kinds} need {needed} vPHBs, and this guest can "
                f"have {self.ceiling}; pass through fewer host devices"
            )
            return error(Name.TOO_MANY_ENDPOINTS, text)
        if others > self.shared_buses * MAX_SLOT:
            buses = self.shared_buses + self.joins_nic
            text = f"{self.emulated} emulated devices do not fit on the {buses} vPHBs left for them"
            return error(Name.TOO_MANY_DEVICES, text)
        return None

    @property
    def _left(self) -> int:
        """The usable vPHBs that neither endpoints nor the NIC on vPHB 0 take."""
        return self.usable - self.endpoints - (self.nic_on_0 and 0 not in self.reserved)


def compute_capacity(current: CurrentLayout, spares: int, reserved: frozenset[int], nic_on_0: bool) -> Capacity:
    """Return the capacity of a guest.

    Args:
        current: The guest.
        spares: The spares that it should have.
        reserved: Buses that the layout puts nothing on.
        nic_on_0: Whether vPHB 0 belongs to an emulated NIC.
    """
    endpoints = sum(group.endpoint for group in current.groups)
    return Capacity(
        ceiling=MAX_PHBS - len(current.guest.commandline_targets),
        reserved=reserved,
        reserved_tail=int(current.guest.commandline_uses_last_bus),
        endpoints=endpoints,
        emulated=len(current.groups) - endpoints,
        nic_on_0=nic_on_0,
        min_spares=min(spares, 1),
    )


def reserved_buses(guest: Guest) -> frozenset[int]:
    """Return the buses that the layout puts nothing on.

    Those are the buses of the qemu:commandline, and empty ones that have a NUMA node or a user-defined alias, or that
    reserve names.
    """
    used = {device.address.bus for device in guest.devices if device.address is not None}
    wanted = {phb.index for phb in guest.phbs if phb.node is not None or phb.named} | guest.reserve
    return frozenset(bus for bus in wanted if bus not in used and bus < MAX_PHBS) | guest.commandline_buses


def empty_vphbs(guest: Guest) -> set[int]:
    """Return the vPHBs that hold no device and that a device may be put on."""
    used = {device.address.bus for device in guest.devices if device.address is not None}
    return {phb.index for phb in guest.phbs} - used - reserved_buses(guest) - guest.used_by_commandline


def vphb_0_last(bus: int) -> int:
    """Sort key of buses: libvirt puts devices without an address on vPHB 0, so it is filled last."""
    return bus or MAX_PHBS


def commandline_clashes(guest: Guest, phbs: Iterable[Phb]) -> Iterator[Diagnostic]:
    """Yield an error for each vPHB that QEMU would refuse, because a device of the qemu:commandline has its id.

    Args:
        guest: The guest.
        phbs: Its vPHBs, or those of a layout.
    """
    for phb in phbs:
        if phb.index in guest.commandline_indexes:
            text = f"needs the QEMU id pci.{phb.index}, which the qemu:commandline gives to a device; rename that"
            yield error(Name.COMMANDLINE_PHB, text, f"<controller> pci {phb.index}", phb.line)
