"""Changes made in the text of a well-formed XML document, in its own indentation, quotes and line ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lxml import etree

from .text import Document

# In a well-formed document without a DTD, < starts markup wherever it stands outside of these.
_MARKUP = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|(?P<end></[^>]*>)"
    r"|(?P<start><(?P<name>[^\s/>]+)[^'\">]*(?:(?:'[^']*'|\"[^\"]*\")[^'\">]*)*>)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"\s+([^\s=/>]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_EMPTY_END = re.compile(r"\s*/>\Z")
_REST_OF_LINE = re.compile(r"(?:[ \t]*<!--(?:(?!-->)[^\r\n])*-->)*[ \t]*(?=\r?\n)")
_BLANK_REST = re.compile(r"[ \t]*(?=\r?\n)")


@dataclass
class Changes:
    """Changes to the elements of a document's tree, which itself stays as it is.

    Attributes:
        attributes: For each element, its new attributes by name; None removes one.
        texts: For each element, the text that replaces all of its content.
        removed: The elements to remove.
        inserted: New elements, each with its parent, and the sibling that it goes after or None for the end.
    """

    attributes: dict[etree._Element, dict[str, str | None]] = field(default_factory=dict)
    texts: dict[etree._Element, str] = field(default_factory=dict)
    removed: list[etree._Element] = field(default_factory=list)
    inserted: list[tuple[etree._Element, etree._Element | None, etree._Element]] = field(default_factory=list)


@dataclass(frozen=True)
class Span:
    """Where an element stands in the text.

    Attributes:
        start: Start of its start tag.
        content: End of its start tag.
        close: Start of its end tag; the same as content if it is an empty-element tag.
        end: End of the element.
    """

    start: int
    content: int
    close: int
    end: int

    @property
    def is_empty_tag(self) -> bool:
        """Whether it is an empty-element tag, <a/>."""
        return self.content == self.end


@dataclass(frozen=True)
class Style:
    """How a document is written.

    Attributes:
        quote: The quote around most of its attributes.
        empty: The end of most of its elements without content: "/>", " />" or "".
        line_end: Its line end.
    """

    quote: str
    empty: str
    line_end: str

    def render(self, element: etree._Element, indent: str | None, step: str) -> str:
        """Return a new element as text.

        Args:
            element: The element.
            indent: The white space before it on its line, or None for no lines of their own.
            step: What its children are indented by.
        """
        attributes = "".join([f" {name!s}={self.quoted(str(value))}" for name, value in element.items()])
        start = f"<{element.tag}{attributes}"
        if not len(element) and not element.text:
            return f"{start}{self.empty}" if self.empty else f"{start}></{element.tag}>"
        inner = indent + step if indent is not None else None
        children = "".join([self.line(inner) + self.render(child, inner, step) for child in element])
        last = self.line(indent) if len(element) else ""
        return f"{start}>{escape(element.text or '')}{children}{last}</{element.tag}>"

    def line(self, indent: str | None) -> str:
        """Return what a new line starts with, or nothing if there are no lines."""
        return self.line_end + indent if indent is not None else ""

    def quoted(self, value: str, quote: str | None = None) -> str:
        """Return an attribute's value in quotes."""
        quote = quote or self.quote
        if value.isalnum():  # nearly all new ones are numbers
            return quote + value + quote
        return quote + escape(value).replace(quote, "&quot;" if quote == '"' else "&apos;") + quote


def apply_changes(document: Document, tree: etree._ElementTree, changes: Changes) -> str | None:
    """Return the text of a document with changes made, or None if it cannot be told where.

    Args:
        document: The document.
        tree: Its tree.
        changes: Changes to the tree's elements.
    """
    text = document.text
    found = _find_spans(text)
    elements = list(tree.iter("*"))
    if len(found) != len(elements):
        return None
    splicer = _Splicer(text, dict(zip(elements, found)), _find_style(document, found))
    return _replace(text, sorted(splicer.replacements(changes)))


def _find_spans(text: str) -> list[Span]:
    """Return the place of each element, in document order."""
    spans: list[Span] = []
    open_tags: list[int] = []
    for match in _MARKUP.finditer(text):
        start, end = match.span()
        if match.lastgroup == "start":
            spans.append(Span(start, end, end, end))
            if text[end - 2] != "/":
                open_tags.append(len(spans) - 1)
        elif match.lastgroup == "end" and open_tags:
            number = open_tags.pop()
            spans[number] = Span(spans[number].start, spans[number].content, start, end)
    return spans


def _find_style(document: Document, spans: list[Span]) -> Style:
    """Return how most of a document is written."""
    text = document.text
    tags = "".join(text[span.start : span.content] for span in spans)
    empty = {"/>": 0, " />": 0, "": 0}
    for span in spans:
        if span.is_empty_tag:
            empty[" />" if text[span.end - 3].isspace() else "/>"] += 1
        elif span.content == span.close:
            empty[""] += 1
    return Style(
        quote='"' if tags.count('="') > tags.count("='") else "'",
        empty=max(empty, key=empty.__getitem__),
        line_end=document.line_end,
    )


def _replace(text: str, replacements: list[tuple[int, int, int, str]]) -> str | None:
    """Return a text with parts replaced, or None if two of them overlap."""
    pieces = []
    position = 0
    for start, end, _, new in replacements:
        if start < position:
            return None
        pieces += [text[position:start], new]
        position = end
    return "".join([*pieces, text[position:]])


@dataclass(frozen=True)
class _Splicer:
    """A document, and where its elements are."""

    text: str
    spans: Mapping[etree._Element, Span]
    style: Style

    def replacements(self, changes: Changes) -> Iterator[tuple[int, int, int, str]]:
        """Yield what to replace: start, end, a number that keeps the order, and the new text."""
        order = 0
        for element, attributes in changes.attributes.items():
            for start, end, new in self._set_attributes(element, attributes):
                yield start, end, order, new
                order += 1
        for element, content in changes.texts.items():
            span = self.spans[element]
            yield span.content, span.close, order, escape(content)
            order += 1
        for element in changes.removed:
            yield (*self._line_of(element), order, "")
            order += 1
        inserted: dict[tuple[etree._Element, etree._Element | None], list[etree._Element]] = {}
        for parent, after, child in changes.inserted:
            inserted.setdefault((parent, after), []).append(child)
        for (parent, after), children in inserted.items():
            start, end, new = self._append(parent, children) if after is None else self._insert_after(after, children)
            yield start, end, order, new
            order += 1

    def _set_attributes(
        self, element: etree._Element, attributes: Mapping[str, str | None]
    ) -> Iterator[tuple[int, int, str]]:
        span = self.spans[element]
        present = {match[1]: match for match in _ATTRIBUTE.finditer(self.text, span.start, span.content)}
        last = max((match.end() for match in present.values()), default=span.start + 1 + len(str(element.tag)))
        added = ""
        for name, value in attributes.items():
            match = present.get(name)
            if match is not None and value is not None:
                yield match.start(2), match.end(2), self.style.quoted(value, match[2][0])
            elif match is not None:
                yield match.start(), match.end(), ""
            elif value is not None:
                added += f" {name}={self.style.quoted(value)}"
        if added:
            yield last, last, added

    def _line_of(self, element: etree._Element) -> tuple[int, int]:
        """Return the part of the text to remove with an element: its line if nothing else is there."""
        span = self.spans[element]
        rest = _BLANK_REST.match(self.text, span.end)
        indent = self._indent_of(span)
        if rest is None or indent is None:
            return span.start, span.end
        start = span.start - len(indent) - 1
        return start - (self.text[start - 1 : start] == "\r"), rest.end()

    def _insert_after(self, sibling: etree._Element, children: list[etree._Element]) -> tuple[int, int, str]:
        """Insert elements after another, and after the comments on its line."""
        span = self.spans[sibling]
        indent = self._indent_of(span)
        rest = _REST_OF_LINE.match(self.text, span.end) if indent is not None else None
        position = rest.end() if rest is not None else span.end
        return position, position, self._render(children, indent, self._step(sibling))

    def _append(self, parent: etree._Element, children: list[etree._Element]) -> tuple[int, int, str]:
        """Insert elements at the end of another."""
        span = self.spans[parent]
        content = self.text[span.content : span.close]
        if content.strip():
            last = next((child for child in reversed(parent) if isinstance(child.tag, str)), None)
            indent = self._indent_of(self.spans[last]) if last is not None else None
            position = span.content + len(content.rstrip())
            rest = _BLANK_REST.match(self.text, position)
            position = rest.end() if rest is not None else position
            return position, position, self._render(children, indent, self._step(parent))
        outer = self._indent_of(span)
        step = self._step(parent)
        inner = outer + step if outer is not None else None
        inside = self._render(children, inner, step) + self.style.line(outer)
        if not span.is_empty_tag:
            return span.content, span.close, inside
        tag_end = _EMPTY_END.search(self.text[span.start : span.end])
        start = span.start + (tag_end.start() if tag_end is not None else 0)
        return start, span.end, f">{inside}</{self._name(span)}>"

    def _render(self, children: list[etree._Element], indent: str | None, step: str) -> str:
        return "".join([self.style.line(indent) + self.style.render(child, indent, step) for child in children])

    def _name(self, span: Span) -> str:
        """Return the name of an element as written, with its prefix."""
        match = _MARKUP.match(self.text, span.start)
        return match["name"] if match is not None else ""

    def _indent_of(self, span: Span) -> str | None:
        """Return the white space before an element on its line, or None if something else is there."""
        line = self.text.rfind("\n", 0, span.start) + 1
        before = self.text[line : span.start]
        return before if line and not before.strip(" \t") else None

    def _step(self, element: etree._Element) -> str:
        """Return by how much an element is indented further than its parent, else two spaces."""
        parent = element.getparent()
        inner = self._indent_of(self.spans[element])
        outer = self._indent_of(self.spans[parent]) if parent is not None else None
        if outer is None and parent is not None and parent.getparent() is None:
            outer = ""
        if inner is not None and outer is not None and inner.startswith(outer) and len(inner) > len(outer):
            return inner[len(outer) :]
        return "  "


def escape(text: str) -> str:
    """Return text as XML has it outside of markup. xml.sax has the same, and loads a web client for it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
