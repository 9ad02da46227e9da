"""The guest's NUMA cells and their host bindings, and the size of its memory."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from lxml import etree

from ..errors import InputError
from ..model import Cell, Memory
from ..ranges import Ranges
from .values import parse_decimal, parse_digits, read_decimal, shorten, source_line

_UNITS = {
    "b": 1, "bytes": 1, "kb": 1000, "k": 1024, "kib": 1024, "mb": 1000**2, "m": 1024**2, "mib": 1024**2,
    "gb": 1000**3, "g": 1024**3, "gib": 1024**3, "tb": 1000**4, "t": 1024**4, "tib": 1024**4,
}  # fmt: skip
"""Bytes of a unit, in lower case (virScaleInteger in libvirt's src/util/virutil.c)."""

MAX_NUMBER = 65535
"""Largest processor or node number that is read."""

_PART = r"(\^?)([0-9]+)(?:-([0-9]+))?"


def read_cells(root: etree._Element) -> tuple[Cell, ...]:
    """Return the NUMA cells of a guest.

    Args:
        root: The <domain> element.

    Raises:
        InputError: A cpuset or nodeset cannot be parsed.
    """
    memory = {
        read_decimal(bound, "cellid"): read_ranges(bound, "nodeset") for bound in root.iterfind("numatune/memnode")
    }
    cells = [
        (position if identity is None else identity, read_ranges(cell, "cpus"))
        for position, cell in enumerate(root.iterfind("cpu/numa/cell"))
        for identity in [read_decimal(cell, "id")]
    ]
    pinned = _pinned_cpus(root, [vcpus for _, vcpus in cells])
    return tuple(Cell(identity, memory.get(identity, Ranges()), cpus) for (identity, _), cpus in zip(cells, pinned))


def _pinned_cpus(root: etree._Element, cells: list[Ranges]) -> Iterator[Ranges]:
    """Yield the host processors of each cell; none unless all of its vCPUs are pinned.

    Args:
        root: The <domain> element.
        cells: The vCPUs of each cell. libvirt refuses cells that overlap.
    """
    spans = sorted((first, last, cell) for cell, vcpus in enumerate(cells) for first, last in vcpus.spans)
    pins = {read_decimal(pin, "vcpu"): read_ranges(pin, "cpuset") for pin in root.iterfind("cputune/vcpupin")}
    cpus: list[list[tuple[int, int]]] = [[] for _ in cells]
    count = [0] * len(cells)
    for vcpu, pin in pins.items():
        position = bisect_right(spans, (vcpu, MAX_NUMBER + 1, 0)) - 1 if vcpu is not None and pin else -1
        if position >= 0 and vcpu is not None and vcpu <= spans[position][1]:
            cell = spans[position][2]
            count[cell] += 1
            cpus[cell].extend(pin.spans)
    for cell, vcpus in enumerate(cells):
        yield Ranges.of(cpus[cell]) if count[cell] == len(vcpus) else Ranges()


def read_memory(root: etree._Element) -> Memory:
    """Return how much memory a guest has, in KiB.

    Args:
        root: The <domain> element.
    """
    current = _kib(root.find("memory")) or 0
    return Memory(
        current,
        _kib(root.find("maxMemory")) or current,
        _kib(root.find("memtune/hard_limit")),
        root.find("memoryBacking/locked") is not None,
    )


def read_ranges(element: etree._Element, name: str) -> Ranges:
    """Return a set of numbers, e.g. 0-3,^2,8 (virBitmapParse in libvirt's src/util/virbitmap.c).

    Args:
        element: The element.
        name: The attribute; the set is empty if it is absent.

    Raises:
        InputError: The attribute is not such a set.
    """
    text = element.get(name, "")
    parts = [_parse_part(part) for part in text.replace(" ", "").split(",") if part]
    spans = [part for part in parts if part is not None]
    if len(spans) < len(parts):
        raise InputError(
            f"<{element.tag}>: {name}='{shorten(text)}' is not a set of numbers up to {MAX_NUMBER}",
            source_line(element),
        )
    if not any(excluded for excluded, _, _ in spans):
        return Ranges.of((first, last) for _, first, last in spans)
    return _without_excluded(spans)


def _parse_part(text: str) -> tuple[bool, int, int] | None:
    """Return whether a part of a set excludes numbers, and which it is about, or None if malformed."""
    match = re.fullmatch(_PART, text)
    if match is None:
        return None
    first = parse_digits(match.group(2))
    last = parse_digits(match.group(3)) if match.group(3) is not None else first
    if first is None or last is None or max(first, last) > MAX_NUMBER:
        return None
    return bool(match.group(1)), first, last


def _without_excluded(parts: Iterable[tuple[bool, int, int]]) -> Ranges:
    """Return the set after including and excluding, part by part."""
    marks = bytearray(MAX_NUMBER + 2)
    for excluded, first, last in parts:
        size = max(last - first + 1, 0)
        marks[first : first + size] = bytes(size) if excluded else b"\1" * size
    spans = []
    start = marks.find(1)
    while start >= 0:
        end = marks.find(0, start)
        spans.append((start, end - 1))
        start = marks.find(1, end)
    return Ranges(tuple(spans))


def _kib(element: etree._Element | None) -> int | None:
    """Return an amount of memory in KiB, rounded up, or None if absent or unreadable."""
    if element is None:
        return None
    amount = parse_decimal((element.text or "").strip())
    factor = _UNITS.get(element.get("unit", "KiB").lower())
    if factor is None or amount is None:
        return None
    return (amount * factor + 1023) // 1024


def needs_vfio(elements: Iterable[etree._Element]) -> bool:
    """Return whether libvirt locks all of a guest's memory (qemuDomainNeedsVFIO, virDomainDefHasVDPANet).

    Args:
        elements: The devices of the guest.
    """
    return any(
        (element.tag == "hostdev" and element.get("type") in ("pci", "mdev"))
        or (element.tag == "interface" and element.get("type") in ("hostdev", "vdpa"))
        or (element.tag == "disk" and element.get("type") == "nvme")
        for element in elements
    )
