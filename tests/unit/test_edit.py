"""Edits of a document's text: everything else keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lxml import etree

from papr_hook.domainxml import splice
from papr_hook.domainxml.edit import Edited, Edits, new_address
from papr_hook.domainxml.text import parse
from papr_hook.model import PciAddress

Edit = Callable[[Edits, etree._Element], None]


def edited(text: str, edit: Edit) -> str:
    """Return a document after an edit, which must leave the rest of its bytes alone."""
    data = text.encode()
    tree = parse(data)
    before = etree.tostring(tree)
    edits = Edits()
    edit(edits, tree.getroot())
    result = edits.apply(tree, data)
    assert etree.tostring(tree) == before
    assert not result.is_reformatted
    return result.data.decode()


def address(bus: int = 1, function: int = 0, shared: bool = False) -> Edit:
    """Return an edit that sets the address of the first device."""

    def edit(edits: Edits, root: etree._Element) -> None:
        edits.set_address(root[0], PciAddress(bus=bus, slot=1, function=function), shared)

    return edit


NEW = "<address type='pci' domain='0x0000' bus='0x01' slot='0x01' function='0x0'/>"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<d>\n  <rng/>\n</d>", f"<d>\n  <rng>\n    {NEW}\n  </rng>\n</d>"),
        ("<d>\n\t<rng></rng>\n</d>", f"<d>\n\t<rng>\n\t\t{NEW[:-2]}></address>\n\t</rng>\n</d>"),
        ("<d>\r\n <rng a='b'/>\r\n</d>\r\n", f"<d>\r\n <rng a='b'>\r\n  {NEW}\r\n </rng>\r\n</d>\r\n"),
        ("<d>\n  <rng>\n  </rng>\n</d>", f"<d>\n  <rng>\n    {NEW}\n  </rng>\n</d>"),
        ("<d><rng/></d>\n", f"<d><rng>{NEW}</rng></d>\n"),
        ("<d>\n  <rng><b/></rng>\n</d>", f"<d>\n  <rng><b/>{NEW}</rng>\n</d>"),
        ("<d>\n  <rng>\n     <b/>\n  </rng>\n</d>", f"<d>\n  <rng>\n     <b/>\n     {NEW}\n  </rng>\n</d>"),
        ("<d>\n  <rng>\n    <b/> <!-- x -->\n  </rng>\n</d>",
         f"<d>\n  <rng>\n    <b/> <!-- x -->\n    {NEW}\n  </rng>\n</d>"),
        ("<d>\n  <rng>\n    <b />\n  </rng>\n</d>", f"<d>\n  <rng>\n    <b />\n    {NEW[:-2]} />\n  </rng>\n</d>"),
        ('<d e="f">\n  <rng/>\n</d>', f'<d e="f">\n  <rng>\n    {NEW}\n  </rng>\n</d>'.replace("'", '"')),
        ("<d>\n  <rng>\n    <b></b>\n  </rng>\n</d>",
         f"<d>\n  <rng>\n    <b></b>\n    {NEW[:-2]}></address>\n  </rng>\n</d>"),
        ("<d><x:rng xmlns:x='urn:u' /></d>", f"<d><x:rng xmlns:x='urn:u'>{NEW[:-2]} /></x:rng></d>"),
        ("<!--1--><?p 2?><d><rng/></d><!--3--><?p 4?>\n<!--5-->\n",
         f"<!--1--><?p 2?><d><rng>{NEW}</rng></d><!--3--><?p 4?>\n<!--5-->\n"),
    ],
)  # fmt: skip
def test_a_new_address(before: str, after: str) -> None:
    """It is written in the document's own indentation, quotes, line ends and style of empty elements."""
    assert edited(before, address()) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<address type='pci' bus='0' slot='1'/>",
         "<address type='pci' bus='0x01' slot='1' domain='0x0000' function='0x0'/>"),
        ('<address  bus = "0x02"\n type="pci" slot="0x1" domain="0" function="0" />',
         '<address  bus = "0x01"\n type="pci" slot="0x1" domain="0" function="0" />'),
        ("<address type='pci' domain='0' bus='2' slot='1' function='0' multifunction='on'/>",
         "<address type='pci' domain='0' bus='0x01' slot='1' function='0'/>"),
        ("<address type='pci'></address>",
         "<address type='pci' domain='0x0000' bus='0x01' slot='0x01' function='0x0'></address>"),
    ],
)  # fmt: skip
def test_an_address_that_changes(before: str, after: str) -> None:
    """Attributes that have their value already, in whatever base, stay."""
    assert edited(f"<d><rng>{before}</rng></d>", address()) == f"<d><rng>{after}</rng></d>"


def test_a_shared_slot() -> None:
    made = edited("<d><rng/></d>", address(shared=True))
    assert "multifunction='on'" in made
    assert "multifunction" not in edited("<d><rng/></d>", address(function=1, shared=True))


def remove(*positions: int) -> Edit:
    def edit(edits: Edits, root: etree._Element) -> None:
        edits.removed.extend(root[position] for position in positions)

    return edit


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<d>\n  <a/>\n  <b/>\n</d>", "<d>\n  <b/>\n</d>"),
        ("<d>\r\n  <a/>  \r\n  <b/>\r\n</d>", "<d>\r\n  <b/>\r\n</d>"),
        ("<d>\n\n  <a>\n  </a>\n\n  <b/>\n</d>", "<d>\n\n\n  <b/>\n</d>"),
        ("<d>\n  <a/> <!-- x -->\n  <b/>\n</d>", "<d>\n   <!-- x -->\n  <b/>\n</d>"),
        ("<d>\n  <a/><b/>\n</d>", "<d>\n  <b/>\n</d>"),
        ("<d><a/>text<b/></d>", "<d>text<b/></d>"),
    ],
)
def test_a_removed_element(before: str, after: str) -> None:
    """Its line goes if nothing else is on it."""
    assert edited(before, remove(0)) == after


def test_removed_neighbours() -> None:
    assert edited("<d>\n  <a/>\n  <b/>\n  <c/>\n</d>", remove(0, 1)) == "<d>\n  <c/>\n</d>"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<d>\n  <a/>\n  <b/>\n</d>", "<d>\n  <a/>\n  <n/>\n  <m/>\n  <b/>\n</d>"),
        ("<d>\n  <a/> <!-- x -->\n</d>", "<d>\n  <a/> <!-- x -->\n  <n/>\n  <m/>\n</d>"),
        ("<d><a/><b/></d>", "<d><a/><n/><m/><b/></d>"),
        ("<d><a/>text</d>", "<d><a/><n/><m/>text</d>"),
    ],
)
def test_new_siblings(before: str, after: str) -> None:
    def edit(edits: Edits, root: etree._Element) -> None:
        for name in "nm":
            edits.insert(root, etree.Element(name), root[0])

    assert edited(before, edit) == after


def test_a_sibling_of_what_goes() -> None:
    def edit(edits: Edits, root: etree._Element) -> None:
        edits.removed.append(root[0])
        edits.insert(root, etree.Element("n"), root[0])

    assert edited("<d>\n  <a/>\n  <b/>\n</d>", edit) == "<d>\n  <n/>\n  <b/>\n</d>"


def test_a_new_element_with_children() -> None:
    def edit(edits: Edits, root: etree._Element) -> None:
        new = etree.Element("n", {"a": "<&'\""})
        etree.SubElement(new, "m").text = "7"
        edits.insert(root, new)

    assert edited("<d>\n</d>", edit) == "<d><n a='&lt;&amp;&apos;\"'><m>7</m></n></d>"
    made = edited("<d>\n  <e b='c'/>\n</d>", edit)
    assert made == "<d>\n  <e b='c'/>\n  <n a='&lt;&amp;&apos;\"'>\n    <m>7</m>\n  </n>\n</d>"


def test_text() -> None:
    def edit(edits: Edits, root: etree._Element) -> None:
        edits.texts[root[0]] = "3"

    assert edited("<d><a> 1 <!-- x --></a></d>", edit) == "<d><a>3</a></d>"


ODD = (
    "<?xml version='1.0'?>\n<!-- <d> -->\n<?p <d> ?>\n<d q=\"a>'b\" r='&lt;&#10;'><![CDATA[<rng>]]>\n"
    " <rng  />&amp;\n</d>\n<!-- e -->"
)


def test_markup_that_is_no_element() -> None:
    """Comments, CDATA, instructions, > in attributes and character references are left alone."""
    assert edited(ODD, address()) == ODD.replace("<rng  />", f"<rng>\n  {NEW[:-2]} />\n </rng>")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(encoding: str) -> None:
    text = "<d>\r\n  <rng n='\u00e4'/>\r\n</d>"
    tree = parse(text.encode(encoding))
    edits = Edits()
    address()(edits, tree.getroot())
    made = edits.apply(tree, text.encode(encoding))
    assert made == Edited(f"<d>\r\n  <rng n='\u00e4'>\r\n    {NEW}\r\n  </rng>\r\n</d>".encode(encoding))


@pytest.mark.parametrize("wrong", [None, "<d><rng/></d>", "<d><rng>"])
def test_the_tree_that_was_meant(wrong: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is not the tree that was meant is not used: the tree is serialised."""
    monkeypatch.setattr(splice, "apply_changes", lambda *_: wrong)
    data = b"<?xml version='1.0'?>\r\n<d>\r\n<rng/></d>\r\n"
    edits = Edits()
    tree = parse(data)
    address()(edits, tree.getroot())
    made = edits.apply(tree, data)
    expected = f"<?xml version='1.0'?>\r\n<d>\r\n<rng>{NEW}</rng></d>\r\n".replace("'0x", '"0x')
    assert made.is_reformatted
    assert made.data.replace(b'"', b"'") == expected.replace('"', "'").encode()


def test_a_new_address_element() -> None:
    assert etree.tostring(new_address(PciAddress(0, 31, 2, 7), True)).decode() == (
        '<address type="pci" domain="0x0000" bus="0x1f" slot="0x02" function="0x7"/>'
    )
