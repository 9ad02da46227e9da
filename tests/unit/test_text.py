"""Documents as bytes: which encodings are read, and what is refused before libxml2 sees it."""

from __future__ import annotations

import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE

import pytest

from papr_hook.domainxml.text import MAX_BYTES, decode, parse, serialise
from papr_hook.errors import InputError

DOMAIN = "<domain type='kvm'><title>\u00e4\u20ac</title></domain>"
NESTED = "".join(f'<!ENTITY % e{n} "{f"&#37;e{n - 1};" * 8}">' for n in range(1, 9))
BOMB = f"<!DOCTYPE d [<!ENTITY % e0 '&#60;!ENTITY x \"\">'>{NESTED}%e8;]>{DOMAIN}"
"""Five kilobytes of expansion for each byte: libxml2 2.9.14 does not come back from it."""
ATTLIST = "<!DOCTYPE d [" + "".join(f"<!ATTLIST a a{n} CDATA '{'x' * 40}'>" for n in range(800)) + f"]>{DOMAIN}"


def title(data: bytes) -> str | None:
    return parse(data).getroot().findtext("title")


@pytest.mark.parametrize("name", ["utf-8", "UTF-16", "utf-16le", "UCS-4", "us-ascii", "iso-8859-1", "utf-7", "IBM037"])
def test_the_declared_encoding_does_not_count(name: str) -> None:
    """libvirt reads UTF-8 whatever the declaration says."""
    assert title(f"<?xml version='1.0' encoding='{name}'?>\n{DOMAIN}".encode()) == "\u00e4\u20ac"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (BOM_UTF8, "utf-8"),
        (BOM_UTF16_LE, "utf-16-le"),
        (BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
def test_marks_and_utf_16(mark: bytes, encoding: str) -> None:
    data = mark + f"<?xml version='1.0' encoding='utf-16'?>\r\n{DOMAIN}\r\n".encode(encoding)
    assert title(data) == "\u00e4\u20ac"
    document = decode(data)
    assert (document.line_end, document.encode(document.text)) == ("\r\n", data)
    assert serialise(parse(data), document) == data.replace(b"'kvm'", b'"kvm"').replace(
        "'kvm'".encode(encoding), '"kvm"'.encode(encoding)
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("\u00e4".join(("<a>", "</a>")).encode("latin-1"), "line 1: not well-formed XML: not UTF-8"),
        (b"<a>\n\n\xff</a>", "line 3: not well-formed XML: not UTF-8"),
        (BOM_UTF16_LE + b"<\0a", "not UTF-16-LE"),
        (b"<a>\n\0</a>", "line 2: not well-formed XML: a NUL character"),
        (BOM_UTF8 + "<a/>".encode("utf-16-le"), "NUL character"),
        (b" " * (MAX_BYTES + 1), "longer than"),
        (b"<?xml encoding='utf-8'?><a/>", "line 1: not well-formed XML: malformed XML declaration"),
        (b"<?xml version='1.0' encoding='1x'?><a/>", "malformed XML declaration"),
        (b"\n<?xml version='1.0'?><a/>", "line 2: not well-formed XML: XML declaration allowed only at the start"),
        (b"<?xml version='1.0'?>\n\n<a>", "line 3: not well-formed XML"),
        (b"<a>&x;</a>", "line 1: not well-formed XML: Entity 'x' not defined"),
        (b"", "not well-formed XML"),
    ],
)
def test_refused(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse(data)


@pytest.mark.parametrize(
    "document", [BOMB, ATTLIST, f"<!DOCTYPE domain>{DOMAIN}", f"<!--\n--><!DOCTYPE d SYSTEM 'd'>{DOMAIN}"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_no_dtd_is_read(document: str, encoding: str) -> None:
    """The parser stops at a DOCTYPE; the bomb would take it longer than any test may last."""
    with pytest.raises(InputError, match="has a DOCTYPE, which is not allowed"):
        parse(document.encode(encoding))


def test_a_dtd_in_utf_7_is_text() -> None:
    hidden = "<?xml version='1.0' encoding='utf-7'?>" + BOMB.replace("<", "+ADw-")
    with pytest.raises(InputError, match="not well-formed"):
        parse(hidden.encode())


@pytest.mark.parametrize("start", ["<?", "<!--->", "<?xml?>", "<!-- -- >"])
def test_a_dtd_behind_a_broken_start(start: str) -> None:
    """libxml2 goes on after some errors, and would read the DTD."""
    with pytest.raises(InputError):
        parse((start + BOMB).encode())


@pytest.mark.parametrize(
    "document",
    ["<!-- <!DOCTYPE a> --><a/>", "<a><![CDATA[<!DOCTYPE a>]]></a>", "<?a <!DOCTYPE a>?><a/>", "<a/><!--<!DOCTYPE-->"],
)
def test_the_word_alone_is_allowed(document: str) -> None:
    assert parse(document.encode()).getroot().tag == "a"


@pytest.mark.parametrize("between", ["", "\n", "\n<?xml version='1.0'?>\n"])
def test_two_documents(between: str) -> None:
    """virt-install --print-xml prints one for each step of an installation."""
    with pytest.raises(InputError, match="two or more documents.*--print-xml 1 and 2"):
        parse(f"{DOMAIN}{between}{DOMAIN}\n".encode())


def test_nesting_ends() -> None:
    """Deep elements are libxml2's error, not a stack overflow."""
    with pytest.raises(InputError, match="not well-formed"):
        parse(b"<a>" * (sys.getrecursionlimit() * 10))
