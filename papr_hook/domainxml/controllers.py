"""The index of each controller, numbering those without one as libvirt does.

From virDomainControllerInsertPreAlloced in libvirt's src/conf/domain_conf.c and
virDomainAssignControllerIndexes in its src/conf/domain_postparse.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lxml import etree

from ..errors import InputError
from .pci_devices import USB2_FUNCTIONS
from .values import read_decimal, source_line

MAX_INDEX = 0x7FFFFFFF
"""Largest controller index: libvirt keeps it in an int."""


def assign_indexes(
    elements: Iterable[etree._Element], added: Iterable[tuple[str, int]] = ()
) -> Mapping[etree._Element, int]:
    """Return the index of each controller.

    Args:
        elements: The devices of a guest.
        added: Types and indexes of controllers that libvirt adds before it counts.

    Raises:
        InputError: Two PCI controllers have the same index, or an index is too large.
    """
    by_type: dict[str, list[etree._Element]] = {}
    for element in elements:
        if element.tag == "controller":
            by_type.setdefault(element.get("type", ""), []).append(element)
    added_by_type: dict[str, set[int]] = {}
    for kind, taken in added:
        added_by_type.setdefault(kind, set()).add(taken)
    indexes: dict[etree._Element, int] = {}
    for kind, controllers in by_type.items():
        given = {element: index for element in controllers if (index := _given_index(element)) is not None}
        if kind == "pci":
            _refuse_twice(given)
        used = added_by_type.get(kind, set()) | set(given.values())
        indexes.update(_assign_type(kind, controllers, given, used))
    return indexes


def _given_index(element: etree._Element) -> int | None:
    index = read_decimal(element, "index")
    if index is not None and index > MAX_INDEX:
        raise InputError(f"<controller>: index='{index}' is too large", source_line(element))
    return index


def _refuse_twice(given: Mapping[etree._Element, int]) -> None:
    first: dict[int, etree._Element] = {}
    for element, index in given.items():
        if first.setdefault(index, element) is not element:
            other = source_line(first[index])
            raise InputError(
                f"two PCI controllers have index {index}, here and on line {other}",
                source_line(element),
            )


def _assign_type(
    kind: str, controllers: Iterable[etree._Element], given: Mapping[etree._Element, int], used: set[int]
) -> dict[etree._Element, int]:
    """Return the indexes of the controllers of one type.

    Args:
        kind: Their type.
        controllers: The controllers, in document order.
        given: The indexes that the domain XML has.
        used: All indexes that are taken.
    """
    indexes = dict(given)
    usb2 = {(index, element.get("model")) for element, index in given.items()} if kind == "usb" else set()
    lowest = 0
    previous: etree._Element | None = None
    for element in _in_list_order(controllers, given):
        if element not in indexes:
            joined = _joined_index(element, previous, indexes, usb2) if kind == "usb" else None
            if joined is None:
                while lowest in used:
                    lowest += 1
            indexes[element] = lowest if joined is None else joined
            used.add(indexes[element])
            usb2.add((indexes[element], element.get("model")))
        previous = element
    return indexes


def _in_list_order(
    controllers: Iterable[etree._Element], given: Mapping[etree._Element, int]
) -> Iterator[etree._Element]:
    """Yield the controllers of one type in the order of libvirt's own list.

    libvirt inserts a controller before the first one with a larger index, and appends one
    without an index. So the latter follows the controller that was last by then.
    """
    followers: dict[etree._Element | None, list[etree._Element]] = {None: []}
    last: etree._Element | None = None
    for element in controllers:
        if element not in given:
            followers[last].append(element)
            continue
        followers[element] = []
        if last is None or given[element] >= given[last]:
            last = element
    yield from followers[None]
    for element in sorted(given, key=given.__getitem__):
        yield element
        yield from followers[element]


def _joined_index(
    element: etree._Element,
    previous: etree._Element | None,
    indexes: Mapping[etree._Element, int],
    usb2: set[tuple[int, str | None]],
) -> int | None:
    """Return the index of the USB 2 set that a controller joins, or None if it joins none.

    It joins the set of the controller before it, unless that set has its function already.

    Args:
        element: A USB controller without an index.
        previous: The controller before it in libvirt's list.
        indexes: The indexes known so far.
        usb2: Index and model of each USB controller with an index.
    """
    model = element.get("model")
    if previous is None or model not in USB2_FUNCTIONS or previous.get("model") not in USB2_FUNCTIONS:
        return None
    index = indexes[previous]
    return None if (index, model) in usb2 else index
