"""The journal's lines: one each, printable and short, and no failure for the caller."""

from __future__ import annotations

import syslog

import pytest

from papr_hook import journal


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Collect what is written to the journal."""
    written: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: written.append((priority, line)))
    return written


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("guest 'web': laid out", "guest 'web': laid out"),
        ("  two\nlines\r\nand\ta tab ", "two lines and a tab"),
        ("red \x1b[31m, a NUL \0, and \u2028 beside \x85", "red [31m, a NUL , and beside"),
        ("a lone surrogate \udcff in a name", "a lone surrogate in a name"),
        ("", ""),
    ],
)
def test_one_printable_line(lines: list[tuple[int, str]], text: str, line: str) -> None:
    """Line breaks, escape sequences and bytes that are no text reach the journal as spaces."""
    journal.log(journal.WARNING, text)
    assert lines == [(syslog.LOG_WARNING, line)]


@pytest.mark.parametrize("text", ["x" * 301, "x " * 1000, "x" * 4_194_304, "\n" * 5000 + "x"])
def test_long_text_is_cut(text: str) -> None:
    """A line has at most 300 characters, and its end shows that there was more."""
    line = journal.one_line(text)
    assert len(line) <= 300
    assert line.endswith("...")


def test_300_characters_stay() -> None:
    """The longest line is not cut."""
    assert journal.one_line("x" * 300) == "x" * 300


@pytest.mark.parametrize("error", [OSError("no /dev/log"), ValueError("embedded null character")])
def test_failing_journal_is_silent(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A journal that takes no line never fails its caller."""

    def fail(priority: int, line: str) -> None:
        raise error

    monkeypatch.setattr(syslog, "syslog", fail)
    journal.log(journal.ERROR, "guest 'web': not laid out")
