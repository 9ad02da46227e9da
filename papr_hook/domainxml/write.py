"""A Layout, written back into the domain XML that it was computed for."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

from lxml import etree

from ..model import Layout, PciAddress, Phb
from .controllers import MAX_INDEX
from .edit import append, remove, write_address
from .implicit import ImplicitDevice
from .read import PseriesDomain
from .text import serialise
from .values import read_number


def write(domain: PseriesDomain, layout: Layout) -> bytes:
    """Return domain XML with a layout in it; unchanged bytes if it is there already.

    Args:
        domain: The domain XML.
        layout: A layout of its guest.
    """
    if _is_there(domain, layout):
        return domain.data
    tree = copy.deepcopy(domain.tree)
    twins = dict(zip(domain.tree.iter(), tree.iter()))
    holder = tree.getroot().find("devices")
    if holder is None:
        holder = etree.Element("devices")
        append(tree.getroot(), holder, None)
    controllers = [(twins[element], index) for element, index in domain.controllers]
    _write_phbs(holder, controllers, layout.phbs)
    _write_devices(holder, domain, layout, twins)
    return serialise(tree, domain.data)


def with_hostdevs(domain: PseriesDomain, beside: Iterable[tuple[int, PciAddress]]) -> bytes:
    """Return domain XML with further managed host devices, without addresses.

    Args:
        domain: The domain XML.
        beside: The host devices, each with the position of the guest's device that it goes after.
    """
    tree = copy.deepcopy(domain.tree)
    twins = dict(zip(domain.tree.iter(), tree.iter()))
    for position, source in beside:
        first = domain.elements[position]
        if isinstance(first, ImplicitDevice):
            continue
        anchor = twins[first]
        holder = anchor.getparent()
        if holder is not None:
            append(holder, _hostdev(source), anchor)
    return serialise(tree, domain.data)


def _hostdev(source: PciAddress) -> etree._Element:
    new = etree.Element("hostdev", {"mode": "subsystem", "type": "pci", "managed": "yes"})
    address = etree.SubElement(etree.SubElement(new, "source"), "address")
    address.set("domain", f"0x{source.domain:04x}")
    address.set("bus", f"0x{source.bus:02x}")
    address.set("slot", f"0x{source.slot:02x}")
    address.set("function", f"0x{source.function:x}")
    return new


def _is_there(domain: PseriesDomain, layout: Layout) -> bool:
    guest = domain.guest
    return (
        not guest.bridges
        and tuple(sorted(guest.phbs, key=lambda phb: phb.index)) == layout.phbs
        and tuple(device.address for device in guest.devices) == layout.addresses
        and all(element.get("index") is not None for element, _ in domain.controllers)
    )


def _write_phbs(
    holder: etree._Element,
    controllers: Iterable[tuple[etree._Element, int]],
    phbs: tuple[Phb, ...],
) -> None:
    wanted = {phb.index: phb for phb in phbs}
    last = _last_controller(holder)
    for element, index in controllers:
        phb = wanted.get(index)
        if element.get("model") == "pci-root" and phb is not None:
            del wanted[index]
            _write_phb(element, phb)
    for phb in wanted.values():
        new = etree.Element("controller", {"type": "pci", "index": str(phb.index)})
        new.set("model", "pci-root")
        append(holder, new, last)
        _write_phb(new, phb)
        last = new
    kept = {phb.index for phb in phbs} - set(wanted)
    for element, index in controllers:
        if element.get("model") != "pci-root" or index not in kept:
            remove(element)


def _last_controller(holder: etree._Element) -> etree._Element | None:
    """Return what new host bridges go after: the last PCI controller, else the last controller."""
    controllers = holder.findall("controller")
    pci = [element for element in controllers if element.get("type") == "pci"]
    there = pci or controllers
    return there[-1] if there else None


def _write_phb(element: etree._Element, phb: Phb) -> None:
    if element.get("index") is None:
        element.set("index", str(phb.index))
    target = element.find("target")
    if target is None:
        target = etree.Element("target")
        model = element.find("model")
        append(element, target, model)
    if target.get("index") is None or read_number(target, "index", 0, MAX_INDEX) != phb.target:
        target.set("index", str(phb.target))
    node = target.find("node")
    if phb.node is None and node is not None:
        target.remove(node)
        target.text = None
    elif phb.node is not None and node is None:
        node = etree.Element("node")
        node.text = str(phb.node)
        append(target, node, None)
    elif node is not None and int(node.text or "") != phb.node:
        node.text = str(phb.node)


def _write_devices(
    holder: etree._Element,
    domain: PseriesDomain,
    layout: Layout,
    twins: dict[etree._Element, etree._Element],
) -> None:
    sharers = Counter((place.bus, place.slot) for place in layout.addresses)
    for source, device, place in zip(domain.elements, domain.guest.devices, layout.addresses):
        if isinstance(source, ImplicitDevice):
            element = source.make_element()
            write_address(element, place, sharers[place.bus, place.slot] > 1)
            after = _last_controller(holder) if source.tag == "controller" else None
            append(holder, element, after)
        elif device.address != place:
            write_address(twins[source], place, sharers[place.bus, place.slot] > 1)
