"""Domain XML that adopt replaced, kept so that it can be restored.

Each guest has two files, readable by their owner alone because domain XML has passwords: UUID.before.xml, which is
restored, and UUID.after.xml, what libvirt made of the layout. As long as a guest still has the latter, nobody has
changed it since.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PaprHookError

DIRECTORY = Path("/var/lib/papr-hook")

_BEFORE, _AFTER = "before.xml", "after.xml"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class BackupError(PaprHookError):
    """A backup cannot be written or read, or cannot be trusted."""


@dataclass(frozen=True)
class Backup:
    """The domain XML of a guest before and after it was laid out; after is None if adopt was interrupted."""

    before: bytes
    after: bytes | None


@dataclass(frozen=True)
class Backups:
    """The backups below a directory, which is made when the first one is saved."""

    directory: Path = DIRECTORY

    def guests(self) -> list[str]:
        """Return the UUIDs of the guests that have a backup."""
        with _errors(self.directory):
            names = os.listdir(self.directory) if self.directory.exists() else []
        uuids = (name[: -len(_BEFORE) - 1] for name in names if name.endswith(f".{_BEFORE}"))
        return sorted(uuid for uuid in uuids if _UUID.fullmatch(uuid))

    def save(self, uuid: str, before: bytes) -> None:
        """Keep the domain XML of a guest before its layout is defined. Raises BackupError."""
        with _errors(self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._file(uuid, _AFTER).unlink()
            _write(self._file(uuid, _BEFORE), before)

    def confirm(self, uuid: str, after: bytes) -> None:
        """Keep the domain XML that libvirt has after the layout was defined. Raises BackupError."""
        with _errors(self.directory):
            _write(self._file(uuid, _AFTER), after)

    def load(self, uuid: str) -> Backup | None:
        """Return the backup of a guest, or None if there is none.

        Raises:
            BackupError: It cannot be read, or others than its owner can write it.
        """
        with _errors(self.directory):
            before, after = (_read(self._file(uuid, part)) for part in (_BEFORE, _AFTER))
        return Backup(before, after) if before is not None else None

    def remove(self, uuid: str) -> None:
        """Forget the backup of a guest. Raises BackupError."""
        with _errors(self.directory):
            for part in (_BEFORE, _AFTER):
                with contextlib.suppress(FileNotFoundError):
                    self._file(uuid, part).unlink()

    def _file(self, uuid: str, part: str) -> Path:
        return self.directory / f"{uuid}.{part}"


@contextlib.contextmanager
def _errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupError(f"backup in {error.filename or directory}: {error.strerror}") from None


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, with mode 0600."""
    handle, temporary = tempfile.mkstemp(dir=file.parent)
    try:
        with open(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def _read(file: Path) -> bytes | None:
    """Return the contents of a file that only its owner can write, or None if it does not exist."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
            status = os.fstat(stream.fileno())
            trusted = status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not trusted or not stat.S_ISREG(status.st_mode):
                raise BackupError(f"backup in {file}: others than its owner can write it, so it is not restored")
            return stream.read()
    except FileNotFoundError:
        return None
