"""A journal that a client cannot fill."""

from __future__ import annotations

from papr_hook.gateway.limited_log import LINES, PERIOD, LimitedLog


def test_lines_beyond_the_limit_are_counted() -> None:
    """The next period starts with their number."""
    now = 0.0
    written: list[str] = []
    log = LimitedLog(lambda _, text: written.append(text), lambda: now)
    for n in range(LINES + 30):
        log(4, str(n))
    assert written == [str(n) for n in range(LINES)]
    now = PERIOD
    log(4, "again")
    assert written[LINES:] == [f"30 lines were dropped: more than {LINES} in {PERIOD:g} s", "again"]


def test_a_quiet_period_drops_nothing() -> None:
    """Few lines are written for ever."""
    now = 0.0
    written: list[str] = []
    log = LimitedLog(lambda _, text: written.append(text), lambda: now)
    for n in range(100):
        log(4, str(n))
        now += PERIOD / 10
    assert written == [str(n) for n in range(100)]
