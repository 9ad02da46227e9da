"""Wait for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL = 0.05  # seconds


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll a condition until it is true, and fail the test if it is not true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true in {seconds:.0f} s"
        time.sleep(POLL)
