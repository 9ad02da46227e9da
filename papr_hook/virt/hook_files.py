"""The hook where libvirt looks for it, which later programs may have overwritten with their own.

CloudStack and VFIO-Tools write /etc/libvirt/hooks/qemu without looking. libvirt 6.5 and later also runs the programs
in qemu.d beside it (virHookCall in libvirt's src/util/virhook.c).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOOK_DIR: Final = Path("/etc/libvirt/hooks")
"""libvirt's directory of hooks (LIBVIRT_HOOK_DIR in its src/util/virhook.c)."""

ENVIRONMENT: Final = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""What libvirt's daemons give their hooks (virRunScript in its src/util/virhook.c), with the PATH of systemd."""

FIRST_LIBVIRT_WITH_QEMU_D: Final = (6, 5, 0)
"""The first libvirt that runs the programs in qemu.d (virHookCall in its src/util/virhook.c)."""

_MARK: Final = b"# papr-hook"
"""How the second line of the hook begins, in every version."""


@dataclass(frozen=True)
class HookFile:
    """A file that libvirt would run as a qemu hook if it is executable.

    Attributes:
        path: Where it is.
        is_ours: Whether it is papr-hook's hook, of any version.
        is_executable: Whether libvirt runs it.
        changed_at: When it was installed, or its mode changed, in seconds since 1970.
        library: The directory of the modules that it runs, or None if it is another program's.
    """

    path: Path
    is_ours: bool
    is_executable: bool
    changed_at: float
    library: Path | None = None


def read_hooks(hook_dir: Path = HOOK_DIR) -> tuple[HookFile, ...]:
    """Return the qemu hooks in the order in which libvirt runs them.

    Args:
        hook_dir: libvirt's directory of hooks.

    Raises:
        PermissionError: This user may not read them.
    """
    found = [hook_dir / "qemu"]
    try:
        found += sorted((hook_dir / "qemu.d").iterdir())
    except PermissionError:
        raise
    except OSError:
        pass
    return tuple(hook for hook in (_read_hook(file) for file in found) if hook is not None)


def is_papr_hook(lines: Sequence[bytes]) -> bool:
    """Return whether a hook is papr-hook's, of any version.

    Args:
        lines: The first lines of the hook, two or more if it has them.
    """
    return len(lines) > 1 and lines[1].startswith(_MARK)


def _read_hook(file: Path) -> HookFile | None:
    """Return a hook, or None if there is no such file. Raises PermissionError."""
    try:
        with file.open("rb") as hook:
            lines = hook.read(4096).splitlines()
            status = os.fstat(hook.fileno())
    except PermissionError:
        raise
    except OSError:
        return None
    is_ours = is_papr_hook(lines)
    library = next((line[4:] for line in lines if line.startswith(b"lib=")), None) if is_ours else None
    return HookFile(
        file,
        is_ours,
        bool(status.st_mode & 0o111),
        status.st_ctime,
        Path(os.fsdecode(library)) if library is not None else None,
    )


def find_hook_fault(hook_dir: Path = HOOK_DIR) -> str | None:
    """Return what is wrong with the installed hook, as a line for the journal.

    Args:
        hook_dir: libvirt's directory of hooks.

    Returns:
        The fault with what to do, or None if libvirt runs papr-hook's hook, or this user cannot know.
    """
    try:
        hooks = read_hooks(hook_dir)
    except PermissionError:
        return None
    if any(hook.is_ours and hook.is_executable for hook in hooks):
        return None
    main = hook_dir / "qemu"
    found = "is another program's" if main.exists() else "is missing"
    return f"{main} {found}: starts past the gateway are not checked; run papr-hook's install.sh again"
