"""What the host itself uses its PCI devices for: mounted disks, swap, and the default route.

Such a device is never passed through without being asked for. The files of proc are described in proc(5).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from ..model import HostDevice, PciAddress
from .sysfs import device_path, list_names, read_text

MAX_DEPTH = 8
"""Layers of stacked block or network devices that are followed; sysfs could hold a cycle."""


def with_host_use(devices: dict[PciAddress, HostDevice], sysfs: Path, proc: Path) -> dict[PciAddress, HostDevice]:
    """Return host devices, each with what the host itself uses it for.

    Args:
        devices: the devices by address.
        sysfs: where sysfs is mounted.
        proc: where proc is mounted.
    """
    if not devices:
        return {}
    uses = dict.fromkeys(_mounted_disks(sysfs, proc), "a mounted disk")
    uses.update(dict.fromkeys(_default_routes(sysfs, proc), "its default route"))
    return {
        address: dataclasses.replace(device, used_for=_use_below(address, uses, sysfs))
        for address, device in devices.items()
    }


def _use_below(address: PciAddress, uses: dict[str, str], sysfs: Path) -> str | None:
    """Return the use of the first path below a device's directory, or None if there is none."""
    folder = os.path.realpath(device_path(address, sysfs)) + os.sep
    return next((use for path, use in uses.items() if path.startswith(folder)), None)


def _mounted_disks(sysfs: Path, proc: Path) -> Iterator[str]:
    """Yield sysfs paths of block devices that back a mount or swap."""
    lines = read_text(proc / "self/mountinfo").splitlines()
    numbers = {fields[2] for fields in map(str.split, lines) if len(fields) > 2}
    for number in sorted(numbers):
        yield from _disks(sysfs / "dev/block" / number)
    for line in read_text(proc / "swaps").splitlines()[1:]:
        yield from _disks(sysfs / "class/block" / Path(line.split()[0]).name)


def _disks(block: Path, depth: int = 0) -> Iterator[str]:
    """Yield a block device's path, recursing into the slaves of device-mapper and RAID devices."""
    yield os.path.realpath(block)
    if depth < MAX_DEPTH:
        for slave in list_names(block / "slaves"):
            yield from _disks(block / "slaves" / slave, depth + 1)


def _default_routes(sysfs: Path, proc: Path) -> Iterator[str]:
    """Yield sysfs paths of network devices that a default route leads through."""
    for name in sorted(_ipv4_routes(proc) | _ipv6_routes(proc)):
        yield from _interfaces(sysfs / "class/net" / name)


def _ipv4_routes(proc: Path) -> set[str]:
    """Return the interfaces with an IPv4 default route (fib_route_seq_show in Linux net/ipv4/fib_trie.c)."""
    lines = read_text(proc / "net/route").splitlines()[1:]
    rows = [line.split() for line in lines]
    return {row[0] for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"}


def _ipv6_routes(proc: Path) -> set[str]:
    """Return the interfaces with an IPv6 default route (ipv6_route_native_seq_show in Linux net/ipv6/ip6_fib.c).

    The kernel's own default route that rejects is on lo.
    """
    rows = [line.split() for line in read_text(proc / "net/ipv6_route").splitlines()]
    return {row[9] for row in rows if len(row) > 9 and row[0].strip("0") == "" and row[1] == "00" and row[9] != "lo"}


def _interfaces(interface: Path, depth: int = 0) -> Iterator[str]:
    """Yield the path of an interface's device, recursing below bridges, bonds and VLANs."""
    yield os.path.realpath(interface / "device") + os.sep
    if depth < MAX_DEPTH:
        for name in list_names(interface):
            if name.startswith("lower_"):
                yield from _interfaces(interface / name, depth + 1)
