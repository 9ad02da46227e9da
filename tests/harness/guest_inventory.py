"""Parse the report that a test guest prints of its PCI host bridges and devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Device", "Inventory", "Phb", "parse_inventory"]


@dataclass(frozen=True)
class Phb:
    """A PCI host bridge as the guest sees it.

    Attributes:
        domain: the PCI domain.
        config_space_type: the node's ibm,pci-config-space-type, or None if it has none.
    """

    domain: int
    config_space_type: int | None


@dataclass(frozen=True)
class Device:
    """A PCI device as the guest sees it.

    Attributes:
        address: domain:bus:device.function, such as 0001:00:01.0.
        vendor: the vendor ID.
        device: the device ID.
        class_code: the class code, three bytes.
        driver: the bound driver, or None.
        iommu_group: the number of the IOMMU group, or None.
        config_size: the size of the configuration space in bytes.
        numa_node: the NUMA node, or -1 for none.
        config_space_type: the node's ibm,pci-config-space-type, or None if it has none.
        disk: the name of a virtio disk, such as vda, or None.
        mac: the MAC address of a NIC in lower case, or None.
    """

    address: str
    vendor: int
    device: int
    class_code: int
    driver: str | None
    iommu_group: int | None
    config_size: int
    numa_node: int
    config_space_type: int | None
    disk: str | None
    mac: str | None

    @property
    def domain(self) -> int:
        """The PCI domain, which is the index of the vPHB."""
        return int(self.address.split(":")[0], 16)


@dataclass(frozen=True)
class Inventory:
    """One report of a guest.

    Attributes:
        number: the count of reports since the guest booted, this one included.
        phbs: its PCI host bridges, in the order of their domains.
        devices: its PCI devices, in the order of their addresses.
    """

    number: int
    phbs: tuple[Phb, ...]
    devices: tuple[Device, ...]

    def by_mac(self, mac: str) -> Device | None:
        """Return the NIC with that MAC address, given in lower case, or None."""
        return next((device for device in self.devices if device.mac == mac), None)

    def by_disk(self, disk: str) -> Device | None:
        """Return the virtio disk with that name, such as vda, or None."""
        return next((device for device in self.devices if device.disk == disk), None)

    def in_domain(self, number: int) -> tuple[Device, ...]:
        """Return the devices in a PCI domain."""
        return tuple(device for device in self.devices if device.domain == number)


def parse_inventory(text: str) -> Inventory | None:
    """Return the last complete inventory in a console's output.

    Args:
        text: the output, which may end anywhere.

    Returns:
        The inventory, or None if no report has the number of lines that its last line states.
    """
    pattern = r"^papr-inventory begin (\d+)\n(.*?)^papr-inventory end \1 (\d+)$"
    found = re.findall(pattern, text.replace("\r", ""), re.DOTALL | re.MULTILINE)
    for number, body, lines in reversed(found):
        inventory = _inventory(int(number), body.splitlines())
        if len(inventory.phbs) + len(inventory.devices) == int(lines):
            return inventory
    return None


def _inventory(number: int, lines: Sequence[str]) -> Inventory:
    """Parse an inventory's lines, ignoring malformed ones."""
    phbs: list[Phb] = []
    devices: list[Device] = []
    for line in lines:
        kind, _, rest = line.partition(" ")
        fields = dict(field.partition("=")[::2] for field in rest.split())
        try:
            if kind == "phb":
                phbs.append(_phb(fields))
            elif kind == "device":
                devices.append(_device(fields))
        except (KeyError, ValueError):
            continue
    phbs.sort(key=lambda phb: phb.domain)
    return Inventory(number, tuple(phbs), tuple(devices))


def _phb(fields: dict[str, str]) -> Phb:
    """Parse the fields of a PHB's line."""
    return Phb(int(fields["domain"], 16), _hex(fields["config_space_type"]))


def _device(fields: dict[str, str]) -> Device:
    """Parse the fields of a device's line."""
    group = fields["iommu_group"]
    return Device(
        address=fields["address"],
        vendor=int(fields["vendor"], 16),
        device=int(fields["device"], 16),
        class_code=int(fields["class"], 16),
        driver=_text(fields["driver"]),
        iommu_group=None if group == "-" else int(group),
        config_size=int(fields["config_size"]),
        numa_node=int(fields["numa_node"]),
        config_space_type=_hex(fields["config_space_type"]),
        disk=_text(fields["disk"]),
        mac=_text(fields["mac"]),
    )


def _text(value: str) -> str | None:
    """Return a field, or None for '-'."""
    return None if value == "-" else value


def _hex(value: str) -> int | None:
    """Return a hexadecimal field as a number, or None for '-'."""
    return None if value == "-" else int(value, 16)
