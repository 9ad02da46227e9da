"""A definition's NUMA cells, what they are bound to on the host, and how much memory there is."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from ..errors import InputError
from ..model import Cell, Memory
from .values import decimal, line_of

_UNITS = {
    "b": 1, "bytes": 1, "kb": 1000, "k": 1024, "kib": 1024, "mb": 1000**2, "m": 1024**2, "mib": 1024**2,
    "gb": 1000**3, "g": 1024**3, "gib": 1024**3, "tb": 1000**4, "t": 1024**4, "tib": 1024**4,
}  # fmt: skip
"""Bytes of a unit, in lower case (virScaleInteger in libvirt's src/util/virutil.c)."""

MOST = 65536


def cells_of(root: etree._Element) -> tuple[Cell, ...]:
    """The NUMA cells of a guest. root: its <domain>. Raises InputError for a set of numbers that is none."""
    memory = {decimal(bound, "cellid"): numbers(bound, "nodeset") for bound in root.iterfind("numatune/memnode")}
    pinned = {decimal(pin, "vcpu"): numbers(pin, "cpuset") for pin in root.iterfind("cputune/vcpupin")}
    cells = []
    for position, cell in enumerate(root.iterfind("cpu/numa/cell")):
        given = decimal(cell, "id")
        identity = position if given is None else given
        vcpus = numbers(cell, "cpus")
        pins = [pinned.get(vcpu, frozenset()) for vcpu in vcpus]
        cpus = frozenset().union(*pins) if pins and all(pins) else frozenset()
        cells.append(Cell(identity, memory.get(identity, frozenset()), cpus))
    return tuple(cells)


def memory_of(root: etree._Element) -> Memory:
    """How much memory a guest has, in KiB. root: its <domain>."""
    current = _kib(root.find("memory")) or 0
    return Memory(current, _kib(root.find("maxMemory")) or current, _kib(root.find("memtune/hard_limit")))


def numbers(element: etree._Element, name: str) -> frozenset[int]:
    """A set of numbers as libvirt writes them, e.g. 0-3,^2,8 (virBitmapParse in src/util/virbitmap.c).

    element, name: the attribute; without it the set is empty. Raises InputError.
    """
    found: set[int] = set()
    for part in filter(None, element.get(name, "").replace(" ", "").split(",")):
        low, _, high = part.lstrip("^").partition("-")
        last = high or low
        if not (low.isascii() and low.isdigit() and last.isascii() and last.isdigit() and int(last) < MOST):
            raise InputError(f"<{element.tag}>: {name}='{element.get(name)}' is not a set of numbers", line_of(element))
        span = set(range(int(low), int(last) + 1))
        found = found - span if part.startswith("^") else found | span
    return frozenset(found)


def _kib(element: etree._Element | None) -> int | None:
    """An amount of memory in KiB; None where there is none that can be read."""
    if element is None:
        return None
    text = (element.text or "").strip()
    factor = _UNITS.get(element.get("unit", "KiB").lower())
    if factor is None or not (text.isascii() and text.isdigit()):
        return None
    return -(-int(text) * factor // 1024)


def uses_vfio(elements: Iterator[etree._Element]) -> bool:
    """Whether libvirt locks all of a guest's memory (qemuDomainNeedsVFIO, virDomainDefHasVDPANet)."""
    return any(
        (element.tag == "hostdev" and element.get("type") in ("pci", "mdev"))
        or (element.tag == "interface" and element.get("type") in ("hostdev", "vdpa"))
        or (element.tag == "disk" and element.get("type") == "nvme")
        for element in elements
    )
