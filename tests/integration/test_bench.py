"""The benchmarks still measure what their tables say. What they find is not asserted: this machine is busy."""

from __future__ import annotations

from bench import boot
from bench.__main__ import SMALL, run
from bench.table import render
from tests.harness.guest_image import Image


def test_a_little_of_everything() -> None:
    """Every measurement has a value."""
    rows, idle = run(SMALL)
    assert idle > 0
    assert all(row.base > 0 and row.seconds["papr-hook"] > 0 for row in rows)
    lines = render(rows).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [row.name for row in rows]


def test_one_boot(image: Image) -> None:
    """The firmware's part of a boot is found."""
    (found,) = boot.measure(image, 1, [0])
    assert 0 < found.firmware < found.whole
    assert len(boot.render([found]).splitlines()) == 2
