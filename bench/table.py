"""What the benchmarks print: rows of seconds, each beside what the others are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

COLUMNS = ("papr-hook", "socat", "proxyd")


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: What was done.
        beside: What it was compared with.
        base: Seconds of that.
        seconds: Seconds by column.
    """

    name: str
    beside: str
    base: float
    seconds: Mapping[str, float]


def alternate(rounds: int, ways: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return the median of each way. Every round takes each way in turn, so that a busy machine slows all alike."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, measure in ways.items():
            taken[way].append(measure())
    return {way: statistics.median(values) for way, values in taken.items()}


def compare(name: str, beside: str, rounds: int, ways: Mapping[str, Callable[[], float]]) -> Row:
    """Measure each way, and return a row beside the first of them."""
    found = alternate(rounds, ways)
    base, *others = ways
    return Row(name, beside, found[base], {way: found[way] for way in others})


def render(rows: list[Row]) -> str:
    """Return a table: milliseconds of what the others stand beside, and how many times as long they take."""
    width = max(len(row.name) for row in rows)
    beside = max(len(row.beside) for row in rows)
    lines = ["".join((f"{'':{width}}  {'beside':{beside}}{'ms':>10}", *(f"{way:>11}" for way in COLUMNS)))]
    for row in rows:
        cells = (f"{row.seconds[way] / row.base:11.2f}" if way in row.seconds else f"{'':11}" for way in COLUMNS)
        lines.append(f"{row.name:{width}}  {row.beside:{beside}}{row.base * 1000:10.3f}{''.join(cells)}".rstrip())
    return "\n".join(lines)
