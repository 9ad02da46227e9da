"""Marks of guests that are being migrated in or restored: the hook never refuses their start.

libvirt calls the hook for such a guest with migrate or restore, and some milliseconds later with prepare, as for any
start. The mark tells the two kinds of prepare apart. No prepare follows an offline migration, nor a migration that
fails early, so a mark counts for minutes only.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from ..config import STATE_DIR

MAX_AGE = 300.0
"""Lifetime of a mark in seconds: libvirt waits for a guest's job 30 s at most (VIR_JOB_WAIT_TIME in its
src/conf/virdomainjob.c), and other hooks may take their time."""


def mark(run_dir: Path, guest: str) -> None:
    """Mark that a guest's next start belongs to a migration or a restore.

    Args:
        run_dir: libvirt's run directory.
        guest: the guest's name.

    Raises:
        OSError: the mark cannot be kept.
    """
    file = _file(run_dir, guest)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)


def consume(run_dir: Path, guest: str) -> bool:
    """Remove a guest's mark.

    Args:
        run_dir: libvirt's run directory.
        guest: the guest's name.

    Returns:
        Whether there was a mark that still counts.
    """
    file = _file(run_dir, guest)
    try:
        marked_at = file.stat().st_mtime
    except OSError:
        return False
    with contextlib.suppress(OSError):  # in a directory that became read-only a mark counts until it is too old
        file.unlink()
    return abs(time.time() - marked_at) < MAX_AGE


def can_be_kept(run_dir: Path, guest: str) -> bool:
    """Tell whether a mark of a guest could have been kept: without marks any start may belong to a migration.

    Args:
        run_dir: libvirt's run directory.
        guest: the guest's name.
    """
    try:
        mark(run_dir, guest)
        _file(run_dir, guest).unlink()
    except OSError:
        return False
    return True


def _file(run_dir: Path, guest: str) -> Path:
    """Return the file of a mark. A guest's name may contain anything but a slash, so a prefix makes it safe."""
    return run_dir / STATE_DIR / f"incoming-{guest}"
