"""The hook where libvirt looks for it, which later programs may have overwritten with their own.

CloudStack and VFIO-Tools write /etc/libvirt/hooks/qemu without looking. libvirt 6.5 and later also runs the programs
in qemu.d beside it (virHookCall in libvirt's src/util/virhook.c).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

HOOK_DIR: Final = Path("/etc/libvirt/hooks")
"""libvirt's directory of hooks (LIBVIRT_HOOK_DIR in its src/util/virhook.c)."""

_PLACES: Final = ("qemu", "qemu.d/90-papr-hook")
"""Where install.sh puts the hook: the second place beside another program's hook."""

_MARK: Final = b"# papr-hook"
"""How the second line of the hook begins, in every version."""


def find_hook_fault(hook_dir: Path = HOOK_DIR) -> str | None:
    """Return what is wrong with the installed hook, as a line for the journal.

    Args:
        hook_dir: libvirt's directory of hooks.

    Returns:
        The fault with what to do, or None if libvirt runs papr-hook's hook, or this user cannot know.
    """
    try:
        if any(_is_ours(hook_dir / place) for place in _PLACES):
            return None
    except PermissionError:
        return None
    found = "is another program's" if (hook_dir / _PLACES[0]).exists() else "is missing"
    return f"{hook_dir / _PLACES[0]} {found}: starts past the gateway are not checked; run papr-hook's install.sh again"


def _is_ours(file: Path) -> bool:
    """Tell whether a file is papr-hook's hook and libvirt runs it. Raises PermissionError."""
    try:
        with file.open("rb") as hook:
            head = hook.read(4096)
    except PermissionError:
        raise
    except OSError:
        return False
    lines = head.splitlines()
    return len(lines) > 1 and lines[1].startswith(_MARK) and bool(os.stat(file).st_mode & 0o111)
