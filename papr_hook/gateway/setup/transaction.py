"""Change files of a host together or not at all.

New content is staged beside its target first, on the same file system, and renamed into place once all of it exists.
The old content stays beside the target until everything that follows has succeeded. A run that is killed leaves hidden
files named `.NAME.papr-new` and `.NAME.papr-old`; the next run removes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ...errors import SetupError

MAX_LINKS = 40
"""Symbolic links that one path may lead through, as in Linux (MAXSYMLINKS)."""
HOOK_SCRIPTS = "qemu.d"
"""libvirt runs every executable in this directory, so nothing is staged there."""


def resolve_in(root: Path, path: str, *, follow: bool = True) -> Path:
    """Return where a path leads, as a process with this root directory would find it.

    Args:
        root: The directory that absolute links start from; nothing above it is ever reached.
        path: An absolute path below root.
        follow: Whether to follow the last component if it is a symbolic link.

    Raises:
        SetupError: The path leads through too many symbolic links.
    """
    todo = [part for part in path.split("/") if part][::-1]
    found: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del found[-1:]
        elif part != ".":
            here = root.joinpath(*found, part)
            if (todo or follow) and here.is_symlink():
                links += 1
                if links > MAX_LINKS:
                    raise SetupError(f"{path}: too many symbolic links")
                target = os.readlink(here)
                if target.startswith("/"):
                    found = []
                todo.extend([step for step in target.split("/") if step][::-1])
            else:
                found.append(part)
    return root.joinpath(*found)


def exists(path: Path) -> bool:
    """Return whether a path names anything, a dangling symbolic link included."""
    return os.path.lexists(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


@dataclass(frozen=True)
class FileChange:
    """One path of the host and what becomes of it. Subclasses say what."""

    path: str

    def target(self, root: Path) -> Path:
        """Return where the changed file is, in a directory that may be reached through symbolic links."""
        return resolve_in(root, self.path, follow=False)

    def stage(self, new: Path, target: Path) -> None:
        """Create the new content at `new`, or nothing if the change is a removal. Raises OSError."""

    def is_done(self, target: Path) -> bool:
        """Return whether the target is what this change makes of it."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return what the change does, for a dry run."""
        raise NotImplementedError


@dataclass(frozen=True)
class WriteFile(FileChange):
    """Replace a file by a new one."""

    data: bytes
    mode: int = 0o644

    def stage(self, new: Path, target: Path) -> None:
        write_new(new, self.data)
        new.chmod(self.mode)

    def is_done(self, target: Path) -> bool:
        if target.is_symlink() or not target.is_file():
            return False
        return target.read_bytes() == self.data and target.stat().st_mode & 0o7777 == self.mode

    def describe(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True)
class EditFile(FileChange):
    """Give a file new content, but leave its owner, mode, ACL and labels, and a link to it, as they are."""

    data: bytes

    def target(self, root: Path) -> Path:
        return resolve_in(root, self.path)

    def stage(self, new: Path, target: Path) -> None:
        write_new(new, self.data)
        if not target.exists():
            new.chmod(0o644)
            return
        status = target.stat()
        os.chown(new, status.st_uid, status.st_gid)
        new.chmod(status.st_mode & 0o7777)
        # The mode of a file with an ACL is its mask, so the ACL comes last.
        for name in os.listxattr(target):
            os.setxattr(new, name, os.getxattr(target, name))

    def is_done(self, target: Path) -> bool:
        return target.is_file() and target.read_bytes() == self.data

    def describe(self) -> str:
        return f"edit {self.path}"


@dataclass(frozen=True)
class MakeLink(FileChange):
    """Replace a path by a symbolic link."""

    to: str

    def stage(self, new: Path, target: Path) -> None:
        new.symlink_to(self.to)

    def is_done(self, target: Path) -> bool:
        return target.is_symlink() and os.readlink(target) == self.to

    def describe(self) -> str:
        return f"link {self.path} -> {self.to}"


@dataclass(frozen=True)
class RemovePath(FileChange):
    """Remove a file, a link or a directory."""

    def is_done(self, target: Path) -> bool:
        return not exists(target)

    def describe(self) -> str:
        return f"remove {self.path}"


def write_new(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, and see it on the disk. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def beside(target: Path, kind: str) -> Path:
    """Return where a target's new or old content is kept. kind: "new" or "old"."""
    directory = target.parent.parent if target.parent.name == HOOK_SCRIPTS else target.parent
    return directory / f".{target.name}.papr-{kind}"


@dataclass(frozen=True)
class _Staged:
    change: FileChange
    target: Path

    @property
    def new(self) -> Path:
        return beside(self.target, "new")

    @property
    def old(self) -> Path:
        return beside(self.target, "old")


class Transaction:
    """File changes that are staged, committed, and then kept or rolled back.

    As a context manager it rolls back whatever was not finished.
    """

    def __init__(self, root: Path) -> None:
        """root: The root directory of the host, or of the tree that a package is made of."""
        self._root = root
        self._staged: list[_Staged] = []
        self._committed: list[_Staged] = []
        self._directories: list[Path] = []

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.roll_back()

    def stage(self, changes: Iterable[FileChange]) -> None:
        """Create the new content of every change beside its target. Raises OSError, SetupError."""
        for change in changes:
            target = change.target(self._root)
            staged = _Staged(change, target)
            for leftover in (staged.new, staged.old):
                remove(leftover)
            if change.is_done(target):
                continue
            self._staged.append(staged)
            if not isinstance(change, RemovePath):
                self._make_directory(target.parent)
                change.stage(staged.new, target)

    def commit(self) -> None:
        """Put the staged content into place. Raises OSError; the caller then rolls back."""
        for staged in self._staged:
            self._committed.append(staged)
            _set_aside(staged)
            if exists(staged.new):
                os.rename(staged.new, staged.target)

    def roll_back(self) -> None:
        """Restore what was there before, and remove what was staged."""
        for staged in reversed(self._committed):
            _restore(staged)
        for staged in self._staged:
            remove(staged.new)
        for directory in reversed(self._directories):
            with contextlib.suppress(OSError):
                directory.rmdir()
        self._forget()

    def finish(self) -> None:
        """Remove the old content, and directories that nothing is left in."""
        for staged in self._committed:
            remove(staged.old)
            if isinstance(staged.change, RemovePath) and staged.target.parent.name.endswith(".d"):
                with contextlib.suppress(OSError):
                    staged.target.parent.rmdir()
        self._forget()

    def _forget(self) -> None:
        self._staged, self._committed, self._directories = [], [], []

    def _make_directory(self, path: Path) -> None:
        if not path.is_dir():
            self._make_directory(path.parent)
            path.mkdir()
            path.chmod(0o755)
            self._directories.append(path)


def _set_aside(staged: _Staged) -> None:
    """Keep the old content. A file that gets a new one stays in place until the rename, even if this run is killed."""
    target = staged.target
    if target.is_file() and not target.is_symlink() and exists(staged.new):
        os.link(target, staged.old)
    elif exists(target):
        os.rename(target, staged.old)


def _restore(staged: _Staged) -> None:
    if not exists(staged.old):
        # Not yet set aside, or new: only a target whose staged content was put into place is removed.
        if not exists(staged.new) and not isinstance(staged.change, RemovePath):
            remove(staged.target)
        return
    if staged.target.is_dir() and not staged.target.is_symlink():
        shutil.rmtree(staged.target)
    os.replace(staged.old, staged.target)
    # A rename between two names of one file does nothing (rename(2)).
    remove(staged.old)
