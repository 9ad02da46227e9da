"""Values of a definition, read the way libvirt reads them, and elements, edited in place."""

from __future__ import annotations

import re
from typing import cast

from lxml import etree

from ..errors import InputError
from ..model import PciAddress

_NUMBER = re.compile(r"[ \t\n\r\f\v]*\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))\Z")
_DECIMAL = re.compile(r"[ \t\n\r\f\v]*\+?([0-9]+)\Z")


def line_of(element: etree._Element) -> int | None:
    """The line of the input that an element stands on; None for a new one."""
    return cast("int | None", element.sourceline)


def number(element: etree._Element, name: str, default: int, top: int) -> int:
    """An attribute as libvirt's strtoul with base 0 reads it: 0x for hex, 0 for octal.

    element, name: the attribute; default: where there is none; top: its largest value. Raises
    InputError.
    """
    text = element.get(name)
    if text is None:
        return default
    match = _NUMBER.match(text)
    if match is None:
        raise _bad(element, name, text, "not a number")
    hexadecimal, octal, decimal = match.groups()
    value = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
    if value > top:
        raise _bad(element, name, text, f"more than {top:#x}")
    return value


def decimal(element: etree._Element, name: str) -> int | None:
    """An attribute that libvirt reads as a whole decimal number, 0 or more; None if absent.

    Raises InputError.
    """
    text = element.get(name)
    if text is None:
        return None
    match = _DECIMAL.match(text)
    if match is None:
        raise _bad(element, name, text, "not a whole number of 0 or more")
    return int(match.group(1))


def _bad(element: etree._Element, name: str, text: str, why: str) -> InputError:
    parent = element.getparent()
    inside = f" of <{parent.tag}>" if parent is not None and parent.tag != "devices" else ""
    return InputError(f"<{element.tag}>{inside}: {name}='{text}' is {why}", line_of(element))


def append(parent: etree._Element, child: etree._Element, after: etree._Element | None) -> None:
    """Add a child where a person would: after a sibling, on a line of its own, indented.

    after: the sibling; None for the end of the parent.
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
    """Give a device a PCI address, in place of the one that it has, if any.

    shared: other functions of its slot are there too, which its function 0 then says.
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
    """Take an element out, together with the line that it stood on."""
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
    """The white space before a child of an element; None where the document has none."""
    if len(parent):
        return _blank(parent.text)
    outer = _indent_of(parent)
    return outer + _step(parent, outer) if outer is not None else None


def _indent_of(element: etree._Element) -> str | None:
    """The white space before an element itself."""
    parent = element.getparent()
    if parent is None:
        return "\n" if element.text and "\n" in element.text else None
    return _blank(parent.text)


def _step(element: etree._Element, own: str) -> str:
    """The white space by which a child is further in than its parent."""
    parent = element.getparent()
    outer = _indent_of(parent) if parent is not None else None
    if outer is not None and own.startswith(outer) and len(own) > len(outer):
        return own[len(outer) :]
    return "  "


def _blank(text: str | None) -> str | None:
    """White space with a line break, without the empty lines before its last line."""
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
