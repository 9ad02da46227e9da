"""Disks and their controllers: the numbers that libvirt derives from a target's name."""

from __future__ import annotations

import re

from lxml import etree

from .values import MAX_UINT, parse_digits, read_decimal

_BUS_OF_PREFIX = {"vd": "virtio", "sd": "scsi", "hd": "ide", "xvd": "xen", "ubd": "uml"}


def disk_bus(disk: etree._Element) -> str | None:
    """Return the bus of a disk, or None if libvirt could not tell it either.

    A target without a bus has the one that its name starts with (virDomainDiskDefParseXML in
    libvirt's src/conf/domain_conf.c).
    """
    target = disk.find("target")
    if target is None:
        return None
    name = target.get("dev", "")
    implied = next((bus for prefix, bus in _BUS_OF_PREFIX.items() if name.startswith(prefix)), None)
    return target.get("bus") or implied


def disk_number(name: str) -> int | None:
    """Return the number that libvirt gives a disk by its target's name: sda 0, sdz 25, sdaa 26.

    From virDiskNameParse in libvirt's src/util/virutil.c. None if the name has no such number.
    """
    match = re.fullmatch(r"(?:fd|hd|vd|sd|xvd|ubd)([a-z]{1,6})[0-9]*", name)
    if match is None:
        return None
    total = 0
    for letter in match.group(1):
        total = total * 26 + ord(letter) - ord("a") + 1
    return total - 1


def nvme_controller(name: str) -> int | None:
    """Return the controller of an NVMe disk by its target's name: nvme1n2 is on controller 1.

    From virDiskNameParse in libvirt's src/util/virutil.c (11.5 and later). None if it names none.
    """
    match = re.fullmatch(r"nvme([0-9]+)n[1-9][0-9]*(?:p[0-9]+)?", name)
    number = parse_digits(match.group(1)) if match is not None else None
    return number if number is not None and number <= MAX_UINT else None


def drive_controller(element: etree._Element) -> int | None:
    """Return the controller that a drive's own address names, or None if it has no such address."""
    address = element.find("address")
    if address is None or address.get("type") != "drive":
        return None
    return read_decimal(address, "controller") or 0


def drive_unit(element: etree._Element) -> int:
    """Return the unit that a drive's own address names, 0 if it names none."""
    address = element.find("address")
    return (read_decimal(address, "unit") or 0) if address is not None else 0
