"""A guest's layout as a tree in text: each vPHB and the devices on it, with their addresses in the guest."""

from __future__ import annotations

import io
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from ..model import Guest, HostTopology
from .nodes import Node, Style, describe


def draw(guest: Guest, topology: HostTopology, out: TextIO, long: bool = False) -> bytes:
    """Return a guest as a tree, as its domain XML has it.

    Args:
        guest: The guest.
        topology: What the host's sysfs has about its passed-through devices.
        out: Where the tree will be printed. On a terminal it has colours and wraps at the terminal's width.
        long: Whether to add models, what backs devices on the host, and DRC indexes.
    """
    data = io.BytesIO()
    text = io.TextIOWrapper(data, encoding=out.encoding or "utf-8", errors="backslashreplace")
    # A pipe has no width, and a wrapped line cannot be searched.
    width = Console(file=out).width if out.isatty() else 10_000
    console = Console(file=text, highlight=False, width=width, force_terminal=out.isatty())
    root = describe(guest, topology, long)
    tree = Tree(_label(root))
    _add_children(tree, root)
    console.print(tree)
    text.flush()
    return data.getvalue()


def _add_children(tree: Tree, node: Node) -> None:
    for child in node.children:
        _add_children(tree.add(_label(child)), child)


def _label(node: Node) -> str:
    return "  ".join(_styled(text, style) for text, style in node.parts)


def _styled(text: str, style: Style) -> str:
    return escape(text) if style is Style.PLAIN else f"[{style.value}]{escape(text)}[/]"
