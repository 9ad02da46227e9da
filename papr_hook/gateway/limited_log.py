"""A journal that a client cannot fill: each process writes a bounded number of lines in a period."""

from __future__ import annotations

import time
from collections.abc import Callable

from .. import journal

LINES = 20
"""Lines that a process writes in one period. A process serves one identity, so the bound is one for each user."""

PERIOD = 10.0
"""Seconds."""


class LimitedLog:
    """Writes lines to the journal, and counts those beyond the limit."""

    def __init__(
        self,
        write: Callable[[int, str], None] = journal.log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._start = clock()
        self._lines = 0

    def __call__(self, priority: int, text: str) -> None:
        """Write a line, or count it if the period has had its lines."""
        now = self._clock()
        if now - self._start >= PERIOD:
            dropped, self._start, self._lines = self._lines - LINES, now, 0
            if dropped > 0:
                self._write(journal.WARNING, f"{dropped} lines were dropped: more than {LINES} in {PERIOD:g} s")
        self._lines += 1
        if self._lines <= LINES:
            self._write(priority, text)
