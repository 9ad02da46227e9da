"""A guest's layout as a picture: a row for each vPHB, with the devices on it to its right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from rich.cells import cell_len

from ..model import Guest, HostTopology
from .nodes import Kind, Node, Style, describe

CHARACTER = 8.0
"""The width that a character may have, in pixels; those of the usual monospace fonts have 7.8 at 13 pixels."""

LINE, PADDING, GAP, INDENT, MARGIN = 18, 8, 8, 40, 16
"""In pixels: the height of a line of text, the space around text and between boxes, and that for connections."""

_STYLE = """\
    text { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #1f2328; white-space: pre }
    rect { fill: #ffffff; stroke: #59636e; rx: 4px }
    path { fill: none; stroke: #59636e }
    .background { stroke: none; rx: 0 }
    .name { font-weight: bold }
    .detail { fill: #59636e }
    .vphb { fill: #ddf4ff; stroke: #0969da }
    .empty { fill: none; stroke: #1a7f37; stroke-dasharray: 4 3 }
    .spare { fill: #1a7f37 }
    .endpoint, .note { fill: #fff8c5; stroke: #9a6700 }
    .fault { fill: #ffebe9; stroke: #d1242f }
    text .endpoint, text .note, text .fault { stroke: none }
    text .endpoint, text .note { fill: #9a6700 }
    text .fault { fill: #d1242f }
    @media (prefers-color-scheme: dark) {
        text { fill: #f0f6fc }
        rect { fill: #0d1117; stroke: #9198a1 }
        path { stroke: #9198a1 }
        .detail { fill: #9198a1 }
        .vphb { fill: #121d2f; stroke: #4493f8 }
        .empty { fill: none; stroke: #3fb950 }
        .spare { fill: #3fb950 }
        .endpoint, .note { fill: #272115; stroke: #d29922 }
        .fault { fill: #25171c; stroke: #f85149 }
        text .endpoint, text .note { fill: #d29922 }
        text .fault { fill: #f85149 }
    }
"""


@dataclass
class _Box:
    """A node with its place in the picture, in pixels."""

    node: Node
    children: list[_Box]
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def lines(self) -> list[list[tuple[str, Style]]]:
        """Return the lines of text: the details are the second."""
        first = [part for part in self.node.parts if part[1] is not Style.DETAIL]
        second = [part for part in self.node.parts if part[1] is Style.DETAIL]
        return [line for line in (first, second) if line]

    @property
    def needed_width(self) -> float:
        """Return the width of the text with the space around it."""
        longest = max(cell_len("  ".join(text for text, _ in line)) for line in self.lines)
        return longest * CHARACTER + 2 * PADDING

    @property
    def height(self) -> float:
        return len(self.lines) * LINE + 2 * PADDING - 4

    @property
    def middle(self) -> float:
        """Return where connections arrive: the middle of the first line."""
        return self.y + PADDING - 2 + LINE / 2


def draw(guest: Guest, topology: HostTopology, long: bool = False) -> str:
    """Return a guest as an SVG document that needs nothing from the network, for light and dark pages.

    Args:
        guest: The guest.
        topology: What the host's sysfs has about its passed-through devices.
        long: Whether to add models, what backs devices on the host, and DRC indexes.
    """
    root = _make(describe(guest, topology, long))
    columns: dict[int, float] = {}
    for depth, box in _walk(root):
        columns[depth] = max(columns.get(depth, 0.0), box.needed_width)
    for depth, box in _walk(root):
        box.width = columns[depth] if depth == 1 else box.needed_width
    # The guest is a title above the rows, so the vPHBs start below it and not to its right.
    starts = {0: float(MARGIN), 1: float(MARGIN + INDENT)}
    for depth in range(2, len(columns)):
        starts[depth] = starts[depth - 1] + columns[depth - 1] + INDENT
    bottom = _place(root, starts, MARGIN)
    width = max(box.x + box.width for _, box in _walk(root)) + MARGIN
    height = bottom - GAP + MARGIN
    parts = "\n".join(f"  {part}" for part in _draw(root))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">\n  <title>{escape(guest.name)}</title>\n  <style>\n{_STYLE}  </style>\n'
        f'  <rect class="background" width="100%" height="100%"/>\n{parts}\n</svg>\n'
    )


def _make(node: Node) -> _Box:
    return _Box(node, [_make(child) for child in node.children])


def _walk(box: _Box, depth: int = 0) -> Iterator[tuple[int, _Box]]:
    yield depth, box
    for child in box.children:
        yield from _walk(child, depth + 1)


def _place(box: _Box, starts: dict[int, float], y: float, depth: int = 0) -> float:
    """Place a box and its children below a height. Return the height below them."""
    box.x, box.y = starts[depth], y
    below = y + box.height + GAP
    row = below if depth == 0 else y
    for child in box.children:
        row = _place(child, starts, row, depth + 1)
    return max(below, row)


def _draw(box: _Box) -> Iterator[str]:
    """Yield the elements of a box and its children, connections first."""
    if box.children:
        yield f'<path d="{_connect(box)}"/>'
    if box.node.kind is not Kind.GUEST:
        size = f'width="{box.width:g}" height="{box.height:g}"'
        yield f'<rect class="{box.node.kind.value}" x="{box.x:g}" y="{box.y:g}" {size}/>'
    for number, line in enumerate(box.lines):
        place = f'x="{box.x + PADDING:g}" y="{box.y + PADDING + 11 + number * LINE:g}"'
        text = "  ".join(_span(text, style) for text, style in line)
        yield f'<text {place} xml:space="preserve">{text}</text>'
    for child in box.children:
        yield from _draw(child)


def _connect(box: _Box) -> str:
    """Return the path from a box to its children: a trunk with a branch to each."""
    if box.node.kind is Kind.GUEST:
        trunk = box.x + PADDING
        start = f"M {trunk:g} {box.y + box.height:g}"
    else:
        trunk = box.children[0].x - INDENT / 2
        start = f"M {box.x + box.width:g} {box.middle:g} H {trunk:g}"
    branches = (f"M {trunk:g} {child.middle:g} H {child.x:g}" for child in box.children)
    return " ".join((start, f"V {box.children[-1].middle:g}", *branches))


def _span(text: str, style: Style) -> str:
    if style is Style.PLAIN:
        return escape(text)
    return f'<tspan class="{style.name.lower()}">{escape(text)}</tspan>'
