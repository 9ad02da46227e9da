"""Notes of the guests that arrive with a layout: by migration, or from a saved state.

libvirt calls the hook for such a guest with migrate or restore, and some milliseconds after that
with prepare, as for any start. A note tells the one from the other. After an offline migration,
and after a migration that fails early, no prepare comes: so a note lasts for minutes only.
"""

from __future__ import annotations

import time
from pathlib import Path

LASTS = 300.0
"""Seconds after which a note counts no longer: libvirt waits for a guest's job 30 s at most
(VIR_JOB_WAIT_TIME in its src/conf/virdomainjob.c), and other hooks may take their time."""


def note(run: Path, guest: str) -> None:
    """Note that a guest's next start is an arrival. run: libvirt's run directory."""
    file = _file(run, guest)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)


def forget(run: Path, guest: str) -> bool:
    """Take a guest's note away. Returns whether there was one that still counts."""
    file = _file(run, guest)
    try:
        noted = file.stat().st_mtime
        file.unlink()
    except FileNotFoundError:
        return False
    return abs(time.time() - noted) < LASTS


def _file(run: Path, guest: str) -> Path:
    """libvirt lets a guest's name hold anything but a slash, so it is a file name with a start."""
    return run / "papr-hook" / f"incoming-{guest}"
