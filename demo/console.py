"""Print the demonstration: steps, short texts, commands with their output, and progress."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import rich.console
from rich.text import Text

__all__ = ["Console"]

WIDTH = 96
INDENT = "   "


class Console:
    """A terminal or a pipe. A pipe gets no colours, and no line that another line replaces."""

    def __init__(self) -> None:
        self._console = rich.console.Console(highlight=False, markup=False, emoji=False)
        self._steps = 1

    def step(self, title: str) -> None:
        """Begin the next step. demo/run prints the first one."""
        self._steps += 1
        self._print("")
        self._print(f"{self._steps}  {title}", "bold")

    def say(self, text: str) -> None:
        """Print a text, wrapped."""
        for line in textwrap.wrap(" ".join(text.split()), WIDTH - len(INDENT)):
            self._print(f"{INDENT}{line}")

    def ran(self, command: str, output: str = "", style: str = "") -> None:
        """Print a command and its output, the output in a style of rich."""
        self._print(f"{INDENT}$ {command}", "bold cyan")
        for line in output.rstrip().splitlines():
            for part in self._wrapped(line):
                self._print(f"     {part}", style)

    def lines(self, text: str) -> None:
        """Print lines as they are."""
        for line in text.rstrip().splitlines():
            self._print(f"     {line}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table whose columns are as wide as their widest cells."""
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        for row in (head, *rows):
            cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths))
            self._print(f"     {cells.rstrip()}", "dim" if row is head else "")

    @contextmanager
    def waiting(self, step: str) -> Iterator[None]:
        """Show a spinner on a terminal while a step runs."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(f"{step} ...", spinner="line"):
            yield

    def _wrapped(self, line: str) -> list[str]:
        return textwrap.wrap(
            line, WIDTH - 5, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        ) or [""]

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)
