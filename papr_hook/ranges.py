"""Sets of non-negative integers, kept as ranges: processors and NUMA nodes, as many as they may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .records import Record


@dataclass(frozen=True, eq=False, repr=False)
class Ranges(Record):
    """A set of non-negative integers.

    Attributes:
        spans: First and last number of each range, ascending, with a gap between any two.
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Ranges:
        """Return the union of ranges, each given by its first and last number."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(span for span in spans if span[0] <= span[1]):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], last)
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    @classmethod
    def single(cls, number: int) -> Ranges:
        """Return the set of one number."""
        return cls(((number, number),))

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def issubset(self, numbers: frozenset[int]) -> bool:
        """Return whether a plain set has all numbers of this one."""
        if len(self) > len(numbers):
            return False
        return all(number in numbers for first, last in self.spans for number in range(first, last + 1))
