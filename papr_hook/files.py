"""Definitions from files and pipes, and files replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from .domainxml.text import MAX_BYTES
from .errors import InputError


def read(name: str, stdin: BinaryIO) -> bytes:
    """The bytes of a definition.

    name: a file, or - for stdin. No more is read than a definition may have. Raises InputError.
    """
    try:
        if name == "-":
            return stdin.read(MAX_BYTES + 1)
        with open(name, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None


def replace(name: str, data: bytes) -> None:
    """Give a file new contents, with its mode and owner, in one step. Raises InputError."""
    target = Path(os.path.realpath(name))
    try:
        status = target.stat()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), status.st_mode & 0o7777)
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"{error.strerror}; the file is as it was") from None
