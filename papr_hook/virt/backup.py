"""Domain XML that adopt replaced, kept so that it can be restored.

Each guest has a file UUID.before.xml, readable by its owner alone because domain XML has passwords. A comment at its
end has the digest of what libvirt made of the layout: as long as a guest still has that, nobody has changed it since.
While the guest is redefined, the file is UUID.pending.xml, so that an older backup is replaced only if it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PaprHookError

DIRECTORY = Path("/var/lib/papr-hook")

_BEFORE, _PENDING = "before.xml", "pending.xml"
_DIGEST = re.compile(rb"<!-- laid out as SHA-256 ([0-9a-f]{64}) -->\n\Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class BackupError(PaprHookError):
    """A backup cannot be written or read, or cannot be trusted."""


@dataclass(frozen=True)
class Backup:
    """What is known of a guest that was laid out.

    Attributes:
        before: Its domain XML before that.
        digest: The digest of its domain XML after that, or "" if adopt was interrupted.
    """

    before: bytes
    digest: str = ""

    def is_laid_out(self, domain_xml: bytes) -> bool:
        """Return whether domain XML is what the guest had after it was laid out."""
        return self.digest == _digest(domain_xml)


@dataclass(frozen=True)
class Backups:
    """The backups below a directory, which is made when the first one is saved."""

    directory: Path = DIRECTORY

    def guests(self) -> list[str]:
        """Return the UUIDs of the guests that have a backup."""
        with _errors(self.directory):
            names = os.listdir(self.directory) if self.directory.exists() else []
        parts = (name.partition(".") for name in names)
        return sorted({uuid for uuid, _, part in parts if part in (_BEFORE, _PENDING) and _UUID.fullmatch(uuid)})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from changing the backups. Raises BackupError if another process does so now."""
        with _errors(self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(number, self.directory)
            yield
        finally:
            os.close(number)

    @contextlib.contextmanager
    def replace(self, uuid: str) -> Iterator[NewBackup]:
        """Yield a backup that replaces the guest's older one if it is confirmed, and is removed if it is not kept.

        Args:
            uuid: The guest's UUID.

        Raises:
            BackupError: A file cannot be written.
        """
        new = NewBackup(self._file(uuid, _PENDING), self._file(uuid, _BEFORE))
        try:
            yield new
        finally:
            new.close()

    def load(self, uuid: str, current: bytes) -> Backup | None:
        """Return the backup of a guest, or None if there is none.

        An older backup counts if a pending one has the domain XML of the guest: no definition followed it.

        Args:
            uuid: The guest's UUID.
            current: Its domain XML.

        Raises:
            BackupError: It cannot be read, or others than its owner can write it.
        """
        with _errors(self.directory):
            pending, before = (_read(self._file(uuid, part)) for part in (_PENDING, _BEFORE))
        data = pending if before is None or pending not in (None, current) else before
        if data is None:
            return None
        digest = _DIGEST.search(data)
        return Backup(data[: digest.start()], digest[1].decode()) if digest is not None else Backup(data)

    def remove(self, uuid: str) -> None:
        """Forget the backup of a guest. Raises BackupError."""
        with _errors(self.directory):
            for part in (_BEFORE, _PENDING):
                self._file(uuid, part).unlink(missing_ok=True)

    def _file(self, uuid: str, part: str) -> Path:
        return self.directory / f"{uuid}.{part}"


class NewBackup:
    """A backup of a guest that is about to be redefined.

    is_kept: whether it stays although nothing has confirmed it.
    """

    def __init__(self, pending: Path, before: Path) -> None:
        self._pending = pending
        self._before = before
        self.is_kept = False

    def save(self, before: bytes) -> None:
        """Keep the domain XML of the guest before its layout is defined. Raises BackupError."""
        with _errors(self._pending.parent):
            self._pending.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._pending, before)

    def keep(self) -> None:
        """Keep it also if it is not confirmed: the layout may be defined from now on."""
        self.is_kept = True

    def drop(self) -> None:
        """Do not keep it: the layout was not defined."""
        self.is_kept = False

    def confirm(self, after: bytes) -> None:
        """Note the domain XML that libvirt has after the layout was defined. Raises BackupError."""
        with _errors(self._pending.parent):
            with self._pending.open("r+b") as stream:
                stream.seek(0, os.SEEK_END)
                stream.write(f"<!-- laid out as SHA-256 {_digest(after)} -->\n".encode())
            self._pending.replace(self._before)

    def close(self) -> None:
        """Remove it unless it is kept. Raises BackupError."""
        if not self.is_kept:
            with _errors(self._pending.parent):
                self._pending.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupError(f"backup in {error.filename or directory}: {error.strerror}") from None


def _lock(number: int, directory: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BackupError(f"another 'papr-hook adopt' uses {directory}; try again when it has ended") from None


def _digest(domain_xml: bytes) -> str:
    return hashlib.sha256(domain_xml).hexdigest()


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, with mode 0600. Then it is on the disk, and so is its name."""
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
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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
