"""The index of each controller, as libvirt counts those that do not say theirs.

From virDomainControllerInsertPreAlloced in libvirt's src/conf/domain_conf.c and
virDomainAssignControllerIndexes in its src/conf/domain_postparse.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lxml import etree

from ..errors import InputError
from .pci_devices import COMPANIONS
from .values import decimal, line_of

HIGHEST = 0x7FFFFFFF


def indexes_of(
    elements: Iterable[etree._Element], added: Iterable[tuple[str, int]] = ()
) -> Mapping[etree._Element, int]:
    """The index of each controller.

    elements: the devices of a guest; added: types and indexes of controllers that libvirt has
    put there by the time it counts. Raises InputError for two PCI controllers with one index.
    """
    controllers = [element for element in elements if element.tag == "controller"]
    given = {e: i for e in controllers if (i := _given(e)) is not None}
    _refuse_twice(given)
    used: dict[str, set[int]] = {}
    for kind, index in [*added, *((_kind(e), i) for e, i in given.items())]:
        used.setdefault(kind, set()).add(index)
    indexes = dict(given)
    previous: dict[str, etree._Element] = {}
    for element in _listed(controllers, given):
        kind = _kind(element)
        if element not in indexes:
            joined = _joined(element, previous.get(kind), indexes)
            indexes[element] = _lowest(used.get(kind, set())) if joined is None else joined
            used.setdefault(kind, set()).add(indexes[element])
        previous[kind] = element
    return indexes


def _kind(element: etree._Element) -> str:
    return element.get("type", "")


def _given(element: etree._Element) -> int | None:
    index = decimal(element, "index")
    if index is not None and index > HIGHEST:
        raise InputError(f"<controller>: index='{index}' is too large", line_of(element))
    return index


def _lowest(used: set[int]) -> int:
    return next(index for index in range(len(used) + 1) if index not in used)


def _refuse_twice(given: Mapping[etree._Element, int]) -> None:
    there: dict[int, etree._Element] = {}
    for element, index in given.items():
        if _kind(element) == "pci" and there.setdefault(index, element) is not element:
            other = line_of(there[index])
            raise InputError(
                f"two PCI controllers have index {index}, here and on line {other}",
                line_of(element),
            )


def _listed(controllers: Iterable[etree._Element], given: Mapping[etree._Element, int]) -> list[etree._Element]:
    """The controllers in the order of libvirt's own list: sorted as they are inserted."""
    listed: list[etree._Element] = []
    for element in controllers:
        same = [n for n, other in enumerate(listed) if _kind(other) == _kind(element)]
        index = given.get(element, -1)
        later = [n for n in same if index >= 0 and given.get(listed[n], -1) > index]
        position = later[0] if later else same[-1] + 1 if same else len(listed)
        listed.insert(position, element)
    return listed


def _joined(
    element: etree._Element,
    previous: etree._Element | None,
    indexes: Mapping[etree._Element, int],
) -> int | None:
    """The index of the USB 2 set that a controller right after one of its functions joins."""
    model = element.get("model")
    if previous is None or _kind(element) != "usb" or model not in COMPANIONS:
        return None
    if previous.get("model") not in COMPANIONS:
        return None
    index = indexes[previous]
    same = (e for e, i in indexes.items() if _kind(e) == "usb" and i == index)
    return None if any(e.get("model") == model for e in same) else index
