"""Marks of arriving guests: they count once, for some minutes, and only where they can be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from papr_hook.hook import migration_marks
from papr_hook.hook.migration_marks import can_be_kept, consume, mark

NAMES = ["web", "..", "a b", "-rf", "*", "é\udcff"]


@pytest.mark.parametrize("guest", NAMES)
def test_mark_counts_once(tmp_path: Path, guest: str) -> None:
    """A guest's mark is consumed by its next start, and is no other guest's."""
    mark(tmp_path, guest)
    assert not consume(tmp_path, f"{guest}2")
    assert consume(tmp_path, guest)
    assert not consume(tmp_path, guest)


@pytest.mark.parametrize("age", [migration_marks.MAX_AGE + 1, -migration_marks.MAX_AGE - 1])
def test_old_mark_does_not_count(tmp_path: Path, age: float) -> None:
    """No prepare follows an offline migration: minutes later, or after the clock was set, a start is a cold one."""
    mark(tmp_path, "web")
    file = next((tmp_path / "papr-hook").iterdir())
    when = file.stat().st_mtime - age
    os.utime(file, (when, when))
    assert not consume(tmp_path, "web")
    assert not file.exists()


def test_marks_are_private(tmp_path: Path) -> None:
    """No other user can set or remove a mark."""
    mark(tmp_path, "web")
    assert (tmp_path / "papr-hook").stat().st_mode & 0o777 == 0o700


def test_marks_can_be_kept(tmp_path: Path) -> None:
    """The question whether marks can be kept leaves none, and removes no other guest's."""
    mark(tmp_path, "db")
    assert can_be_kept(tmp_path, "web")
    assert not consume(tmp_path, "web")
    assert consume(tmp_path, "db")


def test_marks_cannot_be_kept(tmp_path: Path) -> None:
    """A run directory that is none keeps no marks."""
    run_dir = tmp_path / "file"
    run_dir.write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        mark(run_dir, "web")
    assert not can_be_kept(run_dir, "web")
    assert not consume(run_dir, "web")


def test_directory_that_became_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark that was written before its directory became read-only counts."""

    def refuse(file: Path) -> None:
        raise OSError(30, os.strerror(30))

    mark(tmp_path, "web")
    monkeypatch.setattr(Path, "unlink", refuse)
    assert consume(tmp_path, "web")
