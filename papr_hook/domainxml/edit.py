"""Elements of domain XML, edited in place."""

from __future__ import annotations

from lxml import etree

from ..model import PciAddress


def append(parent: etree._Element, child: etree._Element, after: etree._Element | None) -> None:
    """Insert a child on its own line, with matching indentation.

    Args:
        parent: The element that gets the child.
        child: The new element.
        after: The sibling that it goes after, or None to append it.
    """
    siblings = list(parent)
    if after is None and siblings:
        after = siblings[-1]
    indent = _indent(parent)
    if after is None:
        outer = _indent_of(parent)
        parent.text = indent
        child.tail = outer
        parent.append(child)
    else:
        child.tail = after.tail
        after.tail = indent
        # lxml moves the tail of the new sibling along with it, so it is put right first.
        parent.insert(parent.index(after) + 1, child)
    if indent is not None and len(child):
        _indent_children(child, indent)


def write_address(element: etree._Element, place: PciAddress, shared: bool) -> None:
    """Set the PCI address of a device, replacing its present one.

    Args:
        element: The device.
        place: The address.
        shared: Other functions of the slot are in use, so that function 0 is multifunction.
    """
    at = element.find("address")
    if at is None:
        at = etree.Element("address")
        append(element, at, None)
    at.attrib.clear()
    at.set("type", "pci")
    at.set("domain", "0x0000")
    at.set("bus", f"0x{place.bus:02x}")
    at.set("slot", f"0x{place.slot:02x}")
    at.set("function", f"0x{place.function:x}")
    if shared and place.function == 0:
        at.set("multifunction", "on")


def remove(element: etree._Element) -> None:
    """Remove an element, together with the line that it stood on."""
    parent = element.getparent()
    if parent is None:
        return
    previous = element.getprevious()
    tail = element.tail or ""
    last = element.getnext() is None
    kept = tail if last or tail.strip() else None
    if kept is not None and previous is not None:
        previous.tail = kept
    elif kept is not None:
        parent.text = kept
    parent.remove(element)


def _indent(parent: etree._Element) -> str | None:
    """Return the white space before a child of an element, or None if the document has none."""
    if len(parent):
        return _blank(parent.text)
    outer = _indent_of(parent)
    return outer + _step(parent, outer) if outer is not None else None


def _indent_of(element: etree._Element) -> str | None:
    """Return the white space before an element, or None if the document has none."""
    parent = element.getparent()
    if parent is None:
        return "\n" if element.text and "\n" in element.text else None
    return _blank(parent.text)


def _step(element: etree._Element, own: str) -> str:
    """Return the white space by which a child is indented further than its parent."""
    parent = element.getparent()
    outer = _indent_of(parent) if parent is not None else None
    if outer is not None and own.startswith(outer) and len(own) > len(outer):
        return own[len(outer) :]
    return "  "


def _blank(text: str | None) -> str | None:
    """Return the last line break of white space and what follows it, or None if it has no line break."""
    if text is None or "\n" not in text:
        return None
    return "\n" + text.rsplit("\n", 1)[1] if not text.rsplit("\n", 1)[1].strip() else None


def _indent_children(element: etree._Element, indent: str) -> None:
    inner = indent + _step(element, indent)
    element.text = inner
    for child in element:
        child.tail = inner
        if len(child):
            _indent_children(child, inner)
    element[-1].tail = indent
