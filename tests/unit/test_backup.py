"""Domain XML that adopt replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.virt.backup import BackupError, Backups

UUID = "1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9"


def test_a_backup_comes_back(tmp_path: Path) -> None:
    backups = Backups(tmp_path / "new/directory")
    assert backups.guests() == []
    assert backups.load(UUID) is None
    backups.save(UUID, b"<before/>")
    backups.confirm(UUID, b"<after/>")
    assert backups.guests() == [UUID]
    backup = backups.load(UUID)
    assert backup is not None
    assert (backup.before, backup.after) == (b"<before/>", b"<after/>")
    backups.remove(UUID)
    assert backups.load(UUID) is None


def test_nobody_else_can_read_the_passwords(tmp_path: Path) -> None:
    backups = Backups(tmp_path / "backups")
    backups.save(UUID, b"<before/>")
    (file,) = backups.directory.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (backups.directory, file)] == [0o700, 0o600]


def test_an_interrupted_adopt_leaves_no_after(tmp_path: Path) -> None:
    """A second save forgets what libvirt made of the first."""
    backups = Backups(tmp_path)
    backups.save(UUID, b"<first/>")
    backups.confirm(UUID, b"<after/>")
    backups.save(UUID, b"<second/>")
    backup = backups.load(UUID)
    assert backup is not None
    assert (backup.before, backup.after) == (b"<second/>", None)


def test_a_backup_that_others_can_write_is_refused(tmp_path: Path) -> None:
    backups = Backups(tmp_path)
    backups.save(UUID, b"<before/>")
    (file,) = tmp_path.iterdir()
    file.chmod(0o666)
    with pytest.raises(BackupError):
        backups.load(UUID)
