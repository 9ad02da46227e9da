"""Disks and their controllers: the numbers that libvirt makes of a target's name."""

from __future__ import annotations

import re

from lxml import etree

from .values import decimal


def disk_number(name: str) -> int | None:
    """The number that libvirt gives a disk by its target's name: sda 0, sdz 25, sdaa 26.

    From virDiskNameToIndex in libvirt's src/util/virutil.c.
    """
    match = re.fullmatch(r"(?:fd|hd|vd|sd|xvd|ubd)([a-z]{1,6})\d*", name)
    if match is None:
        return None
    total = 0
    for letter in match.group(1):
        total = total * 26 + ord(letter) - ord("a") + 1
    return total - 1


def drive_controller(element: etree._Element) -> int | None:
    """The controller that a drive's own address names; None where it names none."""
    address = element.find("address")
    if address is None or address.get("type") != "drive":
        return None
    return decimal(address, "controller") or 0


def drive_unit(element: etree._Element) -> int:
    """The unit that a drive's own address names."""
    address = element.find("address")
    return (decimal(address, "unit") or 0) if address is not None else 0
