"""A Layout, written back into the domain XML that it was computed for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lxml import etree

from ..model import Layout, PciAddress, Phb
from .controllers import MAX_INDEX
from .edit import Edited, Edits, format_address, new_address
from .implicit import ImplicitDevice
from .read import PseriesDomain
from .text import parse
from .values import parse_decimal, read_number


def write(domain: PseriesDomain, layout: Layout) -> Edited:
    """Return domain XML with a layout in it; unchanged bytes if it is there already.

    Args:
        domain: The domain XML.
        layout: A layout of its guest.
    """
    if _is_there(domain, layout):
        return Edited(domain.data)
    edits = Edits()
    root = domain.tree.getroot()
    holder = root.find("devices")
    added = [*_edit_phbs(edits, domain, holder, layout.phbs)]
    added += _edit_devices(edits, domain, layout)
    if holder is None:
        holder = etree.Element("devices")
        holder.extend(element for element, _ in added)
        edits.insert(root, holder)
    else:
        last = _last_controller(holder)
        for element, is_controller in added:
            edits.insert(holder, element, last if is_controller else None)
    return edits.apply(domain.tree, domain.data)


def with_address(device: bytes, address: PciAddress, shared: bool) -> Edited:
    """Return device XML with a PCI address.

    Args:
        device: The device XML.
        address: The address.
        shared: Other functions of the slot are in use.

    Raises:
        InputError: The device XML is not well-formed.
    """
    tree = parse(device)
    edits = Edits()
    edits.set_address(tree.getroot(), address, shared)
    return edits.apply(tree, device)


def with_hostdevs(domain: PseriesDomain, beside: Iterable[tuple[int, PciAddress]]) -> Edited:
    """Return domain XML with further managed host devices, without addresses.

    Args:
        domain: The domain XML.
        beside: The host devices, each with the position of the guest's device that it goes after.
    """
    edits = Edits()
    for position, source in beside:
        anchor = domain.elements[position]
        holder = anchor.getparent() if not isinstance(anchor, ImplicitDevice) else None
        if holder is not None and not isinstance(anchor, ImplicitDevice):
            edits.insert(holder, _hostdev(source), anchor)
    return edits.apply(domain.tree, domain.data)


def _hostdev(source: PciAddress) -> etree._Element:
    new = etree.Element("hostdev", {"mode": "subsystem", "type": "pci", "managed": "yes"})
    etree.SubElement(etree.SubElement(new, "source"), "address", format_address(source))
    return new


def _is_there(domain: PseriesDomain, layout: Layout) -> bool:
    guest = domain.guest
    return (
        not guest.bridges
        and tuple(sorted(guest.phbs, key=lambda phb: phb.index)) == layout.phbs
        and tuple(device.address for device in guest.devices) == layout.addresses
        and all(element.get("index") is not None for element, _ in domain.controllers)
    )


def _edit_phbs(
    edits: Edits, domain: PseriesDomain, holder: etree._Element | None, phbs: tuple[Phb, ...]
) -> Iterable[tuple[etree._Element, bool]]:
    """Edit the PCI controllers, and yield the new ones."""
    wanted = {phb.index: phb for phb in phbs}
    for element, index in domain.controllers:
        phb = wanted.pop(index, None) if element.get("model") == "pci-root" else None
        if phb is None:
            edits.removed.append(element)
        else:
            _edit_phb(edits, element, phb)
    for phb in wanted.values():
        new = etree.Element("controller", {"type": "pci", "index": str(phb.index), "model": "pci-root"})
        new.append(_new_target(phb))
        yield new, True


def _new_target(phb: Phb) -> etree._Element:
    target = etree.Element("target", {"index": str(phb.target)})
    if phb.node is not None:
        etree.SubElement(target, "node").text = str(phb.node)
    return target


def _edit_phb(edits: Edits, element: etree._Element, phb: Phb) -> None:
    if element.get("index") is None:
        edits.set_attribute(element, "index", str(phb.index))
    target = element.find("target")
    if target is None:
        edits.insert(element, _new_target(phb), element.find("model"))
        return
    if target.get("index") is None or read_number(target, "index", 0, MAX_INDEX) != phb.target:
        edits.set_attribute(target, "index", str(phb.target))
    node = target.find("node")
    if phb.node is None and node is not None:
        edits.removed.append(node)
    elif phb.node is not None and node is None:
        node = etree.Element("node")
        node.text = str(phb.node)
        edits.insert(target, node)
    elif node is not None and parse_decimal(node.text or "") != phb.node:
        edits.texts[node] = str(phb.node)


def _edit_devices(edits: Edits, domain: PseriesDomain, layout: Layout) -> Iterable[tuple[etree._Element, bool]]:
    """Edit the addresses of the devices, and yield those that libvirt would add."""
    sharers = Counter((place.bus, place.slot) for place in layout.addresses)
    for source, device, place in zip(domain.elements, domain.guest.devices, layout.addresses):
        shared = sharers[place.bus, place.slot] > 1
        if isinstance(source, ImplicitDevice):
            element = source.make_element()
            element.append(new_address(place, shared))
            yield element, source.tag == "controller"
        elif device.address != place:
            edits.set_address(source, place, shared)


def _last_controller(holder: etree._Element) -> etree._Element | None:
    """Return what new host bridges go after: the last PCI controller, else the last controller."""
    controllers = holder.findall("controller")
    pci = [element for element in controllers if element.get("type") == "pci"]
    there = pci or controllers
    return there[-1] if there else None
