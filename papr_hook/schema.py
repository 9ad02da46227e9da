"""The layout contract as a schema (contract.xsd, XSD 1.1), which shares no code with the layout.

xmlschema is imported only when a definition is judged: nothing but that needs it, and it takes
longer to load than everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lxml import etree

from .domainxml.text import parse
from .domainxml.values import line_of
from .errors import InputError, PaprHookError

SCHEMA = Path(__file__).with_name("contract.xsd")
XS = "{http://www.w3.org/2001/XMLSchema}"
XSI = "{http://www.w3.org/2001/XMLSchema-instance}"


class SchemaError(PaprHookError):
    """The contract cannot be read as a schema here."""


@dataclass(frozen=True)
class Broken:
    """An assertion of the schema that a definition fails.

    id: its name, e.g. rule2-address. text: what it says, for a person. path: an XPath of the
    element that fails it, which is the <domain> where several elements fail it together. line:
    where that element starts in the definition.
    """

    id: str
    text: str
    path: str
    line: int | None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.id}: {self.path}: {self.text}"


def violations(data: bytes) -> tuple[Broken, ...]:
    """The assertions that a definition fails, in the order of its lines.

    data: the definition of a pseries guest whose mode is not keep: the schema does not ask which
    definitions the contract is for. Raises InputError for what is no definition, SchemaError
    where xmlschema is missing.
    """
    root = parse(data).getroot()
    if root.tag != "domain":
        raise InputError(f"<{root.tag}> is not a domain definition", line_of(root))
    _strip_hints(root)
    found = (_broken(error.validator, error.obj) for error in _schema().iter_errors(root))
    return tuple(sorted(found, key=lambda broken: broken.line or 0))


def assertions() -> dict[str, str]:
    """The sentence of each assertion of the schema, by its id."""
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


def _broken(validator: Any, element: etree._Element) -> Broken:
    """validator: the assertion that failed; element: on which."""
    return Broken(
        id=validator.elem.get("id"),
        text=_sentence(validator.elem),
        path=element.getroottree().getpath(element),
        line=line_of(element),
    )


def _sentence(assertion: Any) -> str:
    """What an assertion says, on one line; it may be an element of either XML library."""
    text = assertion.findtext(f"{XS}annotation/{XS}documentation") or ""
    return " ".join(text.split())
