"""What makes a device the same one in two domain XMLs of a guest, and where libvirt sorts it among its kind.

Clients that define a guest again and again write it without PCI addresses, so an address says nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lxml import etree

from .disks import disk_bus, disk_number
from .pci_devices import USB2_FUNCTIONS, device_kind


def read_identity(element: etree._Element, index: int | None) -> str | None:
    """Return what identifies a device among those of its kind, or None if only its place among them does.

    An interface is known by its MAC, a disk by bus and target, a controller by its index, an mdev or SCSI host by its
    source, a filesystem by its target directory, and any other device by its user-defined alias. A PCI host device is
    known by its address on the host, which model.Device has.

    Args:
        element: The device.
        index: Its index if it is a controller, else None.
    """
    if element.tag == "controller":
        model = element.get("model", "")
        return f"{index} {model}" if model in USB2_FUNCTIONS else str(index)
    read = _IDENTITIES.get(device_kind(element), _user_alias)
    return read(element)


def read_rank(element: etree._Element, index: int | None) -> int:
    """Return the number by which libvirt sorts a device among its kind, 0 if it does not sort them.

    libvirt sorts controllers by index (virDomainControllerInsertPreAlloced in its src/conf/domain_conf.c) and disks
    by target (virDomainDiskInsertPreAlloced there).

    Args:
        element: The device.
        index: Its index if it is a controller, else None.
    """
    if index is not None:
        return index
    target = element.find("target") if element.tag == "disk" else None
    number = disk_number(target.get("dev", "")) if target is not None else None
    return number if number is not None else 0


def _attribute(path: str, name: str) -> Callable[[etree._Element], str | None]:
    """Return a reader of an attribute of an element below a device."""

    def read(element: etree._Element) -> str | None:
        found = element.find(path)
        return (found.get(name) or None) if found is not None else None

    return read


def _mac(interface: etree._Element) -> str | None:
    address = _attribute("mac", "address")(interface)
    return address.strip().lower() if address is not None else None


def _disk(disk: etree._Element) -> str | None:
    target = _attribute("target", "dev")(disk)
    return f"{disk_bus(disk)} {target}" if target is not None else None


def _scsi_host(hostdev: etree._Element) -> str | None:
    source = hostdev.find("source")
    return (source.get("wwpn") or source.get("name")) if source is not None else None


def _user_alias(element: etree._Element) -> str | None:
    alias = _attribute("alias", "name")(element)
    return alias if alias is not None and alias.startswith("ua-") else None


_IDENTITIES: Mapping[str, Callable[[etree._Element], str | None]] = {
    "interface": _mac,
    "disk": _disk,
    "filesystem": _attribute("target", "dir"),
    "hostdev mdev": _attribute("source/address", "uuid"),
    "hostdev scsi_host": _scsi_host,
}
"""By kind: what identifies a device."""
