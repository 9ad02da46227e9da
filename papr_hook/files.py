"""Read domain XML from files and pipes, and replace files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from .domainxml.text import MAX_BYTES
from .errors import InputError


def read(name: str, stdin: BinaryIO) -> bytes:
    """Return the contents of a file, at most one byte more than domain XML may have.

    Args:
        name: A file, or - for stdin.
        stdin: Standard input.

    Raises:
        InputError: It cannot be read.
    """
    try:
        if name == "-":
            return stdin.read(MAX_BYTES + 1)
        with open(name, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None


def replace(name: str, data: bytes) -> None:
    """Give a file new contents; its owner, mode, ACL, extended attributes and hard links stay.

    The file is replaced in one step. One that has further hard links, or attributes that a new file cannot have, is
    overwritten instead, and its contents are restored if that fails.

    Args:
        name: The file, or a symbolic link to it.
        data: The new contents.

    Raises:
        InputError: It cannot be written; its contents are unchanged.
    """
    target = Path(os.path.realpath(name))
    try:
        if target.stat().st_nlink > 1 or not _replace_whole(target, data):
            _overwrite(target, data)
    except OSError as error:
        where = f"{error.filename}: " if error.filename not in (None, str(target)) else ""
        raise InputError(f"{where}{error.strerror}; the file is unchanged") from None


def _replace_whole(target: Path, data: bytes) -> bool:
    """Rename a new file over a file. Return False if the new file cannot have the attributes of the old one."""
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:200]}.")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target.parent)) from None
    try:
        with open(handle, "wb") as file:
            if not _copy_attributes(target, file.fileno()):
                os.unlink(temporary)
                return False
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return True


def _copy_attributes(source: Path, target: int) -> bool:
    """Give a new file the owner, mode and extended attributes of another. Return whether that was possible.

    An ACL is an extended attribute, see acl(5) and xattr(7).
    """
    status = source.stat()
    try:
        os.fchown(target, status.st_uid, status.st_gid)
        os.fchmod(target, status.st_mode & 0o7777)
        wanted = {name: os.getxattr(source, name) for name in os.listxattr(source)}
        for name, value in wanted.items():
            if name not in os.listxattr(target) or os.getxattr(target, name) != value:
                os.setxattr(target, name, value)
        for name in set(os.listxattr(target)) - set(wanted):
            os.removexattr(target, name)
    except OSError:
        return False
    return True


def _overwrite(target: Path, data: bytes) -> None:
    """Write new contents into a file, or restore the old ones."""
    with open(target, "r+b") as file:
        old = file.read()
        try:
            # Reserve the space first: a full disk then fails before anything is lost.
            os.posix_fallocate(file.fileno(), 0, max(len(data), len(old), 1))
            _write_all(file, data)
        except BaseException:
            _write_all(file, old)
            raise


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.seek(0)
    file.write(data)
    file.flush()
    os.ftruncate(file.fileno(), len(data))
    os.fsync(file.fileno())
