"""The device tree that QEMU gives a pseries guest, as far as it is about PCI."""

from __future__ import annotations

import re

import libfdt

BUID = 0x800000020000000
"""A PHB's unit address is this and its target index (QEMU hw/ppc/spapr.c, SPAPR_PCI_BASE_BUID)."""


def read(data: bytes) -> dict[int, list[tuple[int, int]]]:
    """The slots and functions of the devices below each PHB, by the PHB's target index."""
    tree = libfdt.Fdt(data)
    phbs = {}
    for offset in _children(tree, 0):
        match = re.fullmatch(r"pci@([0-9a-f]+)", tree.get_name(offset))
        if match is not None:
            phbs[int(match.group(1), 16) - BUID] = [_place(tree, child) for child in _children(tree, offset)]
    return phbs


def _children(tree: libfdt.Fdt, parent: int) -> list[int]:
    found = []
    offset = tree.first_subnode(parent, [libfdt.NOTFOUND])
    while offset >= 0:
        found.append(offset)
        offset = tree.next_subnode(offset, [libfdt.NOTFOUND])
    return found


def _place(tree: libfdt.Fdt, node: int) -> tuple[int, int]:
    """A slot and function, from the first cell of a reg (PCI bus binding to IEEE 1275: bits 15-11 and 10-8)."""
    first = int.from_bytes(bytes(tree.getprop(node, "reg"))[:4], "big")
    return (first >> 11) & 0x1F, (first >> 8) & 7
