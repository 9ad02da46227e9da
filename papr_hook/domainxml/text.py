"""Bytes to an XML tree and back.

A document is decoded here, and libxml2 gets it as UTF-8 without a declaration. So what is checked
is what libxml2 reads: no other encoding can hide a DOCTYPE from the check.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass

from lxml import etree

from ..errors import InputError
from ..records import Record

MAX_BYTES = 16_777_216
"""The longest domain XML in bytes. libvirt takes 4 MiB as an argument (REMOTE_STRING_MAX in its
src/remote/remote_protocol.x), and what it makes of that and gives to a hook is longer."""

# Compiled when a document needs one: the hook waits for each pattern, and few documents do.
_DECLARATION = (
    r"<\?xml\s+version\s*=\s*(?:'1\.[0-9]+'|\"1\.[0-9]+\")"
    r"(?:\s+encoding\s*=\s*(?:'[A-Za-z][\w.-]*'|\"[A-Za-z][\w.-]*\"))?"
    r"(?:\s+standalone\s*=\s*(?:'(?:yes|no)'|\"(?:yes|no)\"))?\s*\?>"
)
_DECLARATION_START = re.compile(r"<\?xml\s")
_TWO_DOMAINS = r"</domain\s*>\s*(?:<\?xml\s[^<>]*>\s*)?<domain[\s>]"


@dataclass(frozen=True, eq=False, repr=False)
class Document(Record):
    """A decoded document.

    Attributes:
        text: Its text, without a byte order mark.
        encoding: The encoding of its bytes, for str.encode().
        mark: Its byte order mark, or nothing.
    """

    text: str
    encoding: str = "utf-8"
    mark: bytes = b""

    @property
    def declaration(self) -> str:
        """The XML declaration, or nothing."""
        match = re.match(_DECLARATION, self.text, re.ASCII)
        return match.group() if match is not None else ""

    @property
    def line_end(self) -> str:
        """The line end that most of its lines have."""
        return "\r\n" if self.text.count("\r\n") * 2 > self.text.count("\n") else "\n"

    def encode(self, text: str) -> bytes:
        """Return other text as bytes like the document's own."""
        return self.mark + text.encode(self.encoding)


def decode(data: bytes) -> Document:
    """Decode a document as libvirt does.

    libvirt hands a string to libxml2, which reads it as UTF-8 whatever its declaration says
    (xmlCtxtReadDoc in virXMLParseHelper, src/util/virxml.c). UTF-16, which no such string can be,
    is taken from files.

    Raises:
        InputError: It is too long, or neither UTF-8 nor UTF-16.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"longer than {MAX_BYTES} bytes, which is more than libvirt takes")
    encoding, mark = _detect(data)
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"not well-formed XML: not {encoding.upper()}", line) from None
    if "\0" in text:
        raise InputError("not well-formed XML: a NUL character", text.count("\n", 0, text.index("\0")) + 1)
    return Document(text, encoding, mark)


def _detect(data: bytes) -> tuple[str, bytes]:
    """Return the encoding of a document, and its byte order mark."""
    for mark, encoding in ((BOM_UTF8, "utf-8"), (BOM_UTF16_LE, "utf-16-le"), (BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):
            return encoding, mark
    for start, encoding in ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be")):
        if data.startswith(start):
            return encoding, b""
    return "utf-8", b""


def parse(data: bytes) -> etree._ElementTree:
    """Parse a document.

    No DTD is ever read: the first byte of one is an error. Nothing is fetched.

    Raises:
        InputError: It is too long, is not well-formed, or has a DOCTYPE.
    """
    return parse_document(decode(data))


def parse_document(document: Document) -> etree._ElementTree:
    """Parse a decoded document; see parse()."""
    text = document.text
    if "<!DOCTYPE" in text:
        _refuse_doctype(text)
    if _DECLARATION_START.match(text):
        declaration = document.declaration
        if not declaration:
            raise InputError("not well-formed XML: malformed XML declaration", 1)
        text = re.sub("[^\r\n]", " ", declaration) + text[len(declaration) :]
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, strip_cdata=False, collect_ids=False
    )
    try:
        return etree.fromstring(text.encode(), parser).getroottree()
    except etree.XMLSyntaxError as error:
        if re.search(_TWO_DOMAINS, text):
            raise InputError(
                "two or more documents: give them one at a time, as virt-install --print-xml 1 and 2 print them"
            ) from None
        line, _ = error.position
        message = " ".join(re.sub(r", line \d+, column \d+.*", "", str(error)).split())
        raise InputError(f"not well-formed XML: {message}", line or None) from None


class _RootReachedError(Exception):
    """The first element of a document starts."""


def _refuse_doctype(text: str) -> None:
    """Raise InputError if a document has a DOCTYPE, and not only the word in a comment or CDATA section.

    libxml2 cannot be stopped there: it expands parameter entities while it reads the DTD. expat
    reports the DOCTYPE before it reads what is inside.
    """
    from xml.parsers import expat  # few documents need it

    parser = expat.ParserCreate("utf-8")

    def refuse(*_: object) -> None:
        raise InputError("has a DOCTYPE, which is not allowed", parser.CurrentLineNumber)

    def stop(*_: object) -> None:
        raise _RootReachedError

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        parser.Parse(text.encode(), True)
    except _RootReachedError:
        return
    except expat.ExpatError as error:
        raise InputError(f"not well-formed XML: {expat.ErrorString(error.code)}", error.lineno) from None


def serialise(tree: etree._ElementTree, document: Document) -> bytes:
    """Return a tree as bytes, in the encoding and with the line ends of a document.

    Args:
        tree: The tree, which may be a changed one of the document.
        document: The document.
    """
    text = etree.tostring(tree, encoding="unicode")
    if document.declaration:
        text = f"{document.declaration}\n{text}"
    if document.text.endswith("\n") and not text.endswith("\n"):
        text += "\n"
    return document.encode(text.replace("\n", document.line_end))
