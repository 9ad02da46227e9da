"""Bytes to an XML tree and back."""

from __future__ import annotations

import re
from typing import Any, cast

from lxml import etree

from ..errors import InputError

MAX_BYTES = 16_777_216
"""The longest definition in bytes. libvirt takes 4 MiB as an argument (REMOTE_STRING_MAX in its
src/remote/remote_protocol.x), and what it makes of that and gives to a hook is longer."""

_TOKEN = re.compile(rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|<[^>]*>", re.DOTALL)
_SINGLE = re.compile(rb"='[^']*'")
_DOUBLE = re.compile(rb'="([^"\']*)"')


def parse(data: bytes) -> etree._ElementTree:
    """The tree of a document.

    data: the document. Raises InputError when it is too long, is not well-formed, or declares
    entities; none is ever expanded and nothing is fetched.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"longer than {MAX_BYTES} bytes, which is more than libvirt takes")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, strip_cdata=False)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        line, _ = error.position
        message = " ".join(re.sub(r", line \d+, column \d+.*", "", str(error)).split())
        raise InputError(f"not well-formed XML: {message}", line or None) from None
    tree = root.getroottree()
    doctype = tree.docinfo.internalDTD
    if doctype is not None and any(True for _ in cast(Any, doctype).iterentities()):
        raise InputError("declares entities, which no domain definition needs", 1)
    return tree


def serialise(tree: etree._ElementTree, original: bytes) -> bytes:
    """The bytes of a tree that was made from original, in original's encoding and quotes."""
    encoding = tree.docinfo.encoding or "UTF-8"
    declared = original.lstrip().startswith(b"<?xml")
    text = etree.tostring(tree, encoding=encoding, xml_declaration=False)
    assert isinstance(text, bytes)
    if declared:
        text = original[: original.index(b"?>") + 2] + b"\n" + text
    if original.endswith(b"\n") and not text.endswith(b"\n"):
        text += b"\n"
    return _requote(text) if _single_quoted(original) else text


def _single_quoted(original: bytes) -> bool:
    """Whether the document writes its attributes as libvirt does, with single quotes."""
    tags = b"".join(_TOKEN.findall(original))
    return len(_SINGLE.findall(tags)) > len(_DOUBLE.findall(tags))


def _requote(text: bytes) -> bytes:
    def single(token: re.Match[bytes]) -> bytes:
        tag = token.group()
        return tag if tag.startswith((b"<!", b"<?")) else _DOUBLE.sub(rb"='\1'", tag)

    return _TOKEN.sub(single, text)
