"""Sets of numbers that stay ranges."""

from __future__ import annotations

import pytest

from papr_hook.ranges import Ranges


@pytest.mark.parametrize(
    ("spans", "merged"),
    [
        ([], ()),
        ([(3, 5), (0, 1)], ((0, 1), (3, 5))),
        ([(0, 1), (2, 3)], ((0, 3),)),
        ([(0, 9), (2, 3), (9, 12)], ((0, 12),)),
        ([(5, 4), (1, 1)], ((1, 1),)),
    ],
)
def test_ranges_that_touch_are_one(spans: list[tuple[int, int]], merged: tuple[tuple[int, int], ...]) -> None:
    assert Ranges.of(spans).spans == merged


def test_size() -> None:
    assert len(Ranges.of([(0, 65535), (70000, 70000)])) == 65537
    assert not Ranges()
    assert Ranges.single(4).spans == ((4, 4),)


def test_subset_of_a_plain_set() -> None:
    assert Ranges.of([(1, 2), (4, 4)]).issubset(frozenset({1, 2, 3, 4}))
    assert not Ranges.of([(1, 2), (4, 5)]).issubset(frozenset({1, 2, 3, 4}))
    assert not Ranges.of([(0, 10**12)]).issubset(frozenset(range(100)))
    assert Ranges().issubset(frozenset())
