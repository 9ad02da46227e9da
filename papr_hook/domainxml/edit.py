"""Edits of an XML document: recorded on its tree, and made in its text.

Everything that no edit is about keeps its bytes. The edited text is parsed again: unless it is
the tree that was meant, the whole tree is serialised instead.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

from lxml import etree

from ..errors import InputError
from ..model import PciAddress
from . import splice
from .text import decode, parse, serialise
from .values import parse_number

_LINE_END = re.compile(r"[ \t]*\n")
_LINE_START = re.compile(r"\n[ \t]*\Z")


@dataclass(frozen=True)
class Edited:
    """An edited document.

    Attributes:
        data: Its bytes.
        is_reformatted: The whole document was written again, so that white space and quotes may differ.
    """

    data: bytes
    is_reformatted: bool = False


class Edits(splice.Changes):
    """Edits of a document: changes, recorded and made."""

    def set_attribute(self, element: etree._Element, name: str, value: str | None) -> None:
        """Set an attribute, or remove it if the value is None."""
        if element.get(name) != value:
            self.attributes.setdefault(element, {})[name] = value

    def insert(self, parent: etree._Element, child: etree._Element, after: etree._Element | None = None) -> None:
        """Insert a new element after a sibling of the document, or at the end of its parent."""
        self.inserted.append((parent, after, child))

    def set_address(self, device: etree._Element, address: PciAddress, shared: bool) -> None:
        """Set the PCI address of a device.

        Args:
            device: The device.
            address: The address.
            shared: Other functions of the slot are in use, so that function 0 is multifunction.
        """
        new = new_address(address, shared)
        present = device.find("address")
        if present is None:
            self.insert(device, new)
            return
        for name in present.attrib:
            if name not in new.attrib:
                self.set_attribute(present, str(name), None)
        for name, value in new.attrib.items():
            if name not in _NUMBERS or not _is_same_number(present.get(name), str(value)):
                self.set_attribute(present, str(name), str(value))

    def apply(self, tree: etree._ElementTree, data: bytes) -> Edited:
        """Make the edits.

        Args:
            tree: The tree that the elements are of. It stays as it is.
            data: The document that it was parsed from.
        """
        document = decode(data)
        text = splice.apply_changes(document, tree, self)
        if text is not None:
            result = document.encode(text)
            if _is_same(result, self._edited_tree(tree)):
                return Edited(result)
        return Edited(serialise(self._edited_tree(tree), document), is_reformatted=True)

    def _edited_tree(self, tree: etree._ElementTree) -> etree._ElementTree:
        """Return a copy of the tree with the edits made."""
        edited = _copy(tree)
        twins = dict(zip(tree.iter("*"), edited.iter("*")))
        for element, attributes in self.attributes.items():
            for name, value in attributes.items():
                if value is None:
                    del twins[element].attrib[name]
                else:
                    twins[element].set(name, value)
        for element, text in self.texts.items():
            twin = twins[element]
            del twin[:]
            twin.text = text
        last: dict[tuple[etree._Element, etree._Element | None], etree._Element] = {}
        for parent, after, child in self.inserted:
            new = copy.deepcopy(child)
            previous = last.get((parent, after), _last_of_line(twins[after]) if after is not None else None)
            if previous is None:
                twins[parent].append(new)
            else:
                twins[parent].insert(twins[parent].index(previous) + 1, new)
                new.tail, previous.tail = previous.tail, None
            last[parent, after] = new
        for element in self.removed:
            _remove(twins[element])
        return edited


def new_address(address: PciAddress, shared: bool) -> etree._Element:
    """Return an <address> element; see Edits.set_address()."""
    attributes = {"type": "pci", **format_address(address)}
    if shared and address.function == 0:
        attributes["multifunction"] = "on"
    return etree.Element("address", attributes)


def format_address(address: PciAddress) -> dict[str, str]:
    """Return the attributes of a PCI address, of the guest's or of the host's, as libvirt writes them."""
    return {
        "domain": f"0x{address.domain:04x}",
        "bus": f"0x{address.bus:02x}",
        "slot": f"0x{address.slot:02x}",
        "function": f"0x{address.function:x}",
    }


_NUMBERS = frozenset({"domain", "bus", "slot", "function"})


def _is_same_number(present: str | None, value: str) -> bool:
    """Return whether an attribute has a value already, in whatever base."""
    return present is not None and parse_number(present) == parse_number(value)


def _copy(tree: etree._ElementTree) -> etree._ElementTree:
    """Return a copy of a tree. That of copy.deepcopy() has the comments after its root in reverse (lxml 4.9)."""
    original = tree.getroot()
    root = copy.deepcopy(original)
    for node in reversed(list(original.itersiblings())):
        root.addnext(copy.deepcopy(node))
    for node in reversed(list(original.itersiblings(preceding=True))):
        root.addprevious(copy.deepcopy(node))
    return root.getroottree()


def _last_of_line(element: etree._Element) -> etree._Element:
    """Return the last of the comments that follow an element on its line, or the element if none does."""
    previous = element.getprevious()
    parent = element.getparent()
    before = previous.tail if previous is not None else parent.text if parent is not None else None
    last: etree._Element | None = element
    while last is not None and not _LINE_END.match(last.tail or ""):
        following = last.getnext()
        is_comment = isinstance(following, etree._Comment) and "\n" not in (following.text or "")
        last = following if is_comment and not (last.tail or "").strip(" \t") else None
    return last if last is not None and _LINE_START.search(before or "") else element


def _remove(element: etree._Element) -> None:
    """Remove an element, and keep the text after it."""
    parent = element.getparent()
    if parent is None:
        return
    previous = element.getprevious()
    if element.tail and element.tail.strip():
        if previous is None:
            parent.text = (parent.text or "") + element.tail
        else:
            previous.tail = (previous.tail or "") + element.tail
    parent.remove(element)


def _is_same(data: bytes, meant: etree._ElementTree) -> bool:
    """Return whether a document is a tree, but for white space beside tags; the tree loses that."""
    try:
        return _without_blanks(parse(data)) == _without_blanks(meant)
    except InputError:
        return False


def _without_blanks(tree: etree._ElementTree) -> bytes:
    for node in tree.iter():
        if isinstance(node.tag, str) and node.text:
            node.text = node.text.strip() or None
        if node.tail:
            node.tail = node.tail.strip() or None
    return etree.tostring(tree)
