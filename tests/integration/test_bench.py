"""The benchmark still measures what its table says. What it finds is not asserted: this machine is busy."""

from __future__ import annotations

from bench.__main__ import SMALL, run
from bench.table import render


def test_a_little_of_everything() -> None:
    """Every measurement has a value."""
    rows, idle = run(SMALL)
    assert idle > 0
    assert all(row.base > 0 and row.seconds["papr-hook"] > 0 for row in rows)
    lines = render(rows).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [row.name for row in rows]
