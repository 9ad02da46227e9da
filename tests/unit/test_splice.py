"""Changes in the text of a document, which leave all else as it is."""

from __future__ import annotations

import pytest

from papr_hook.domainxml.edit import Edits
from papr_hook.domainxml.splice import escape
from papr_hook.domainxml.text import parse
from papr_hook.model import PciAddress


@pytest.mark.parametrize(
    "document",
    [
        b'<a>\r\n\t<disk dev = "vda" ></disk>\r\n\t<!-- <disk/> -->\r\n</a>\r\n',
        b"<a><disk dev='v&lt;a'/><![CDATA[<disk>]]></a>",
        b"<?xml version='1.0'?>\n<a\n  b='1'><disk></disk  ></a >\n",
    ],
    ids=["double quotes, tabs and CR LF", "one line", "odd white space"],
)
def test_only_the_address_is_new(document: bytes) -> None:
    """Taken out of the result, the address leaves the document, but for a tag that was empty."""
    tree = parse(document)
    disk = tree.getroot().find("disk")
    assert disk is not None
    edits = Edits()
    edits.set_address(disk, PciAddress(bus=1, slot=1), False)
    edited = edits.apply(tree, document)
    assert not edited.is_reformatted
    assert edited.data.count(b"<address") == 1
    head, _, rest = edited.data.partition(b"<disk")
    assert head == document.partition(b"<disk")[0]
    assert rest.endswith(document.rpartition(b"</a")[2])
    again = parse(edited.data).getroot().find("disk/address")
    assert again is not None
    assert again.get("bus") == "0x01"


def test_markup_is_escaped() -> None:
    assert escape("a<b&c") == "a&lt;b&amp;c"
