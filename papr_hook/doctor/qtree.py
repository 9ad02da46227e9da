"""QEMU's device tree, as its monitor's "info qtree" prints it (qdev_print in QEMU's system/qdev-monitor.c)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_LINE = re.compile(r"(?P<indent> *)(?:(?P<kind>dev|bus): (?P<what>.*)|(?P<name>[\w-]+) = (?P<value>.*))")
_PHB = "spapr-pci-host-bridge"


@dataclass(frozen=True)
class QemuDevice:
    """A PCI device on the bus of a PHB.

    Attributes:
        model: QEMU's name of its model.
        id: Its id, "" if it has none.
        slot: Its slot.
        function: Its function.
    """

    model: str
    id: str
    slot: int
    function: int


@dataclass(frozen=True)
class QemuPhb:
    """A PHB of a pseries guest.

    Attributes:
        index: The PCI domain that the guest sees, libvirt's target index.
        id: Its id, "" for the one that every guest has.
        has_extended_config: Whether its PCIe devices have ibm,pci-config-space-type 1 and 4,096 bytes of config space.
        devices: The devices on its bus; those behind a bridge are left out.
    """

    index: int
    id: str
    has_extended_config: bool
    devices: tuple[QemuDevice, ...]


@dataclass
class _Node:
    """A device of the tree while its lines are read."""

    indent: int
    model: str
    id: str
    properties: dict[str, str] = field(default_factory=dict)
    children: list[_Node] = field(default_factory=list)


def parse_qtree(text: str) -> tuple[QemuPhb, ...]:
    """Return the PHBs of a guest, by their indexes.

    Args:
        text: What "info qtree" printed.
    """
    phbs = [node for node in _read_nodes(text.splitlines()) if node.model == _PHB]
    return tuple(sorted((_phb(node) for node in phbs), key=lambda phb: phb.index))


def _read_nodes(lines: Iterable[str]) -> list[_Node]:
    """Return all devices, each with those on its buses."""
    found: list[_Node] = []
    above: list[_Node] = []
    for line in lines:
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            continue
        indent = len(match["indent"])
        if match["kind"] is not None:
            while above and above[-1].indent >= indent:
                above.pop()
        if match["kind"] == "dev":
            model, _, rest = match["what"].partition(", id ")
            node = _Node(indent, model, rest.strip('"'))
            if above:
                above[-1].children.append(node)
            found.append(node)
            above.append(node)
        elif match["name"] is not None and above:
            above[-1].properties.setdefault(match["name"], match["value"])
    return found


def _phb(node: _Node) -> QemuPhb:
    devices = [
        _device(child) for child in node.children if re.fullmatch(r"[0-9a-f]+\.[0-7]", child.properties.get("addr", ""))
    ]
    return QemuPhb(
        int(node.properties.get("index", "0").split()[0]),
        node.id,
        # QEMU before 2.9 has no such property, and no extended configuration space.
        node.properties.get("pcie-extended-configuration-space") == "true",
        tuple(devices),
    )


def _device(node: _Node) -> QemuDevice:
    slot, _, function = node.properties["addr"].partition(".")
    return QemuDevice(node.model, node.id, int(slot, 16), int(function))
