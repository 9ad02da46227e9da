"""Indexes of controllers, as libvirt assigns them."""

from __future__ import annotations

import pytest
from lxml import etree

from papr_hook.domainxml.controllers import assign_indexes
from papr_hook.errors import InputError


def indexes(*controllers: str, added: tuple[tuple[str, int], ...] = ()) -> list[int]:
    elements = [etree.fromstring(f"<controller {attributes}/>") for attributes in controllers]
    assigned = assign_indexes(elements, added)
    return [assigned[element] for element in elements]


def test_the_lowest_unused_one() -> None:
    assert indexes("type='scsi'", "type='scsi' index='1'", "type='scsi'", "type='usb'") == [0, 1, 2, 0]


def test_what_libvirt_added_counts() -> None:
    assert indexes("type='scsi'", "type='scsi'", added=(("scsi", 0), ("usb", 1))) == [1, 2]


EHCI, UHCI1, UHCI2 = (f"type='usb' model='ich9-{name}'" for name in ("ehci1", "uhci1", "uhci2"))


@pytest.mark.parametrize(
    ("controllers", "expected"),
    [
        ((EHCI, UHCI1, UHCI2), [0, 0, 0]),
        ((EHCI, EHCI), [0, 1]),
        ((EHCI, UHCI1, UHCI1, EHCI), [0, 0, 1, 1]),
        ((f"{EHCI} index='3'", UHCI1), [3, 3]),
        ((f"{EHCI} index='3'", UHCI1, f"{UHCI2} index='1'"), [3, 3, 1]),
        ((UHCI1, f"{EHCI} index='0'"), [1, 0]),
        (("type='usb' model='nec-xhci'", UHCI1), [0, 1]),
        ((f"{EHCI} index='2'", f"{UHCI2} index='1'", UHCI1), [2, 1, 2]),
    ],
)
def test_usb_2_sets(controllers: tuple[str, ...], expected: list[int]) -> None:
    """A function without an index joins the set before it in libvirt's list, if its place there is free."""
    assert indexes(*controllers) == expected


def test_two_pci_controllers_with_one_index() -> None:
    with pytest.raises(InputError, match="two PCI controllers have index 1, here and on line 1"):
        indexes("type='pci' index='1'", "type='pci' index='1'")
    assert indexes("type='scsi' index='1'", "type='scsi' index='1'") == [1, 1]


def test_an_index_that_is_too_large() -> None:
    with pytest.raises(InputError, match="index='2147483648' is too large"):
        indexes("type='pci' index='2147483648'")
