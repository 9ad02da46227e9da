"""Domain XML that adopt replaced."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from papr_hook.virt.backup import Backup, BackupError, Backups

UUID = "1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9"


def save(backups: Backups, before: bytes, after: bytes) -> None:
    """Keep a backup of a guest that is redefined."""
    with backups.replace(UUID) as new:
        new.save(before)
        new.confirm(after)


def test_a_backup_comes_back(tmp_path: Path) -> None:
    backups = Backups(tmp_path / "new/directory")
    assert backups.guests() == []
    assert backups.load(UUID, b"<after/>") is None
    save(backups, b"<before/>\n", b"<after/>")
    assert backups.guests() == [UUID]
    backup = backups.load(UUID, b"<after/>")
    assert backup is not None
    assert backup.before == b"<before/>\n"
    assert backup.is_laid_out(b"<after/>")
    assert not backup.is_laid_out(b"<edited/>")
    backups.remove(UUID)
    assert backups.load(UUID, b"<after/>") is None
    assert backups.guests() == []


def test_nobody_else_can_read_the_passwords(tmp_path: Path) -> None:
    backups = Backups(tmp_path / "backups")
    save(backups, b"<before/>", b"<after/>")
    (file,) = backups.directory.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (backups.directory, file)] == [0o700, 0o600]


@pytest.mark.parametrize("fault", [False, True])
def test_an_older_backup_stays_if_the_guest_is_not_redefined(tmp_path: Path, fault: bool) -> None:
    """A new backup that is not confirmed is removed, also if an exception is the reason."""
    backups = Backups(tmp_path)
    save(backups, b"<before/>", b"<after/>")
    older = backups.load(UUID, b"<after/>")
    with contextlib.suppress(BackupError), backups.replace(UUID) as new:
        new.save(b"<later/>")
        if fault:
            raise BackupError
    assert backups.load(UUID, b"<after/>") == older


def test_a_backup_that_may_be_needed_is_kept(tmp_path: Path) -> None:
    """A backup that is neither confirmed nor needless comes back, and does not say what the guest became."""
    backups = Backups(tmp_path)
    save(backups, b"<before/>", b"<after/>")
    with backups.replace(UUID) as new:
        new.save(b"<later/>")
        new.keep()
    assert backups.guests() == [UUID]
    backup = backups.load(UUID, b"<after/>")
    assert backup is not None
    assert backup.before == b"<later/>"
    assert not backup.is_laid_out(b"<after/>")
    save(backups, b"<last/>", b"<after/>")
    backup = backups.load(UUID, b"<after/>")
    assert backup is not None
    assert backup.before == b"<last/>"


def test_a_backup_that_others_can_write_is_refused(tmp_path: Path) -> None:
    backups = Backups(tmp_path)
    save(backups, b"<before/>", b"<after/>")
    (file,) = tmp_path.iterdir()
    file.chmod(0o666)
    with pytest.raises(BackupError):
        backups.load(UUID, b"<after/>")


def test_a_backup_that_no_definition_followed(tmp_path: Path) -> None:
    """The older one counts, if there is one."""
    backups = Backups(tmp_path)
    with backups.replace(UUID) as new:
        new.save(b"<before/>")
        new.keep()
    assert backups.load(UUID, b"<before/>") == Backup(b"<before/>")
    save(backups, b"<before/>", b"<after/>")
    with backups.replace(UUID) as new:
        new.save(b"<edited/>")
        new.keep()
    older = backups.load(UUID, b"<edited/>")
    assert older is not None and older.before == b"<before/>"
    later = backups.load(UUID, b"<laid-out/>")
    assert later is not None and later.before == b"<edited/>"


def test_a_backup_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """Another one that was removed meanwhile does not become an empty backup."""
    backups = Backups(tmp_path)
    with pytest.raises(BackupError), backups.replace(UUID) as new:
        new.save(b"<before/>")
        backups.remove(UUID)
        new.confirm(b"<after/>")
    assert backups.guests() == []


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The lock ends with its holder."""
    backups = Backups(tmp_path / "backups")
    with backups.lock(), pytest.raises(BackupError, match="another 'papr-hook adopt' uses "), backups.lock():
        pass
    with backups.lock():
        pass
