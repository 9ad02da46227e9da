"""The layout rules as an XML Schema (contract.xsd, XSD 1.1), which shares no code with the layout.

xmlschema is imported late, because nothing else needs it and it takes longer to load than everything else.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from lxml import etree

from .diagnostics import Diagnostic, Name, error
from .domainxml.text import parse
from .domainxml.values import source_line
from .errors import InputError, PaprHookError

SCHEMA = Path(__file__).with_name("contract.xsd")
XS = "{http://www.w3.org/2001/XMLSchema}"
XSI = "{http://www.w3.org/2001/XMLSchema-instance}"


class SchemaError(PaprHookError):
    """The schema cannot be used on this host."""


def violations(data: bytes) -> tuple[Diagnostic, ...]:
    """Return the assertions that domain XML fails, in the order of its lines.

    Args:
        data: The domain XML of a pseries guest whose mode is not keep. The schema does not ask which guests the
            rules are for.

    Raises:
        InputError: The document is not domain XML.
        SchemaError: xmlschema is missing.
    """
    root = parse(data).getroot()
    if root.tag != "domain":
        raise InputError(f"<{root.tag}> is not domain XML", source_line(root))
    _strip_hints(root)
    found = (_diagnostic(failure.validator, failure.obj) for failure in _schema().iter_errors(root))
    return tuple(sorted(found, key=lambda diagnostic: diagnostic.line or 0))


def name_of(assertion: str) -> Name:
    """Return the name of what an assertion finds.

    Args:
        assertion: the assertion's id: the name, and a dot and a detail where several assertions have one name.
    """
    return Name(assertion.partition(".")[0])


def assertions() -> dict[str, str]:
    """Return the sentence of each assertion of the schema, by its id."""
    tree = etree.parse(str(SCHEMA))
    return {element.get("id", ""): _sentence(element) for element in tree.iter(f"{XS}assert")}


@lru_cache(maxsize=1)
def _schema() -> Any:
    try:
        import xmlschema
    except ImportError:
        raise SchemaError("the schema needs xmlschema: install python3-xmlschema") from None
    return xmlschema.XMLSchema11(str(SCHEMA))


def _strip_hints(root: etree._Element) -> None:
    """Drop what a document says of schemas of its own: nothing is fetched, no type replaced."""
    for element in root.iter(etree.Element):
        for name in [name for name in element.attrib if str(name).startswith(XSI)]:
            del element.attrib[name]


def _diagnostic(validator: Any, element: etree._Element) -> Diagnostic:
    """Return the finding of an assertion that failed on an element."""
    name = name_of(validator.elem.get("id"))
    device = f"{element.getroottree().getpath(element)}:"
    return error(name, _sentence(validator.elem), device, source_line(element))


def _sentence(assertion: Any) -> str:
    """What an assertion says, on one line; it may be an element of either XML library."""
    text = assertion.findtext(f"{XS}annotation/{XS}documentation") or ""
    return " ".join(text.split())
