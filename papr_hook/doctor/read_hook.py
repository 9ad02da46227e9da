"""Read what there is to know about the hook of this host."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..virt.hook_files import HOOK_DIR, HookFile, read_hooks
from .facts import GuestStart, HookCall, HookFacts

PYTHON: Final = "/usr/bin/python3"
"""What hooks/qemu runs."""
LOAD_SECONDS: Final = 8.0
"""How long hooks/qemu gives Python."""


def read_hook(run_dir: Path, hook_dir: Path = HOOK_DIR, proc: Path = Path("/proc")) -> HookFacts:
    """Return the facts about the hook.

    Args:
        run_dir: libvirt's run directory.
        hook_dir: libvirt's directory of hooks.
        proc: Where proc(5) is.
    """
    files = read_hooks(hook_dir)
    ours = [file for file in files if file.is_ours]
    return HookFacts(
        hook_dir,
        files,
        _find_failure(ours[0]) if ours else "",
        _read_call(run_dir / "papr-hook" / "last-call"),
        max(_read_starts(run_dir / "qemu", proc), key=lambda start: start.at, default=None),
    )


def _find_failure(hook: HookFile) -> str:
    """Return why Python cannot load the modules of the hook, or ""."""
    library = hook.library
    if library is None:
        return ""
    if not (library / "papr_hook").is_dir():
        return f"{library}/papr_hook does not exist"
    argv = [PYTHON, "-B", "-c", "import papr_hook.hook.decision"]
    try:
        done = subprocess.run(
            argv,
            cwd="/",  # Python looks for modules there first, and libvirt runs hooks there
            env={"PYTHONPATH": str(library), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOAD_SECONDS,
        )
    except OSError as error:
        return f"{PYTHON}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{PYTHON} took more than {LOAD_SECONDS:.0f} s"
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[-1] if done.returncode != 0 else ""


def _read_call(file: Path) -> HookCall | None:
    """Return the last call, which hooks/qemu notes in a file, or None if there is no file."""
    try:
        at = file.stat().st_mtime
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    # Two calls may have written at the same time: what follows the first line is the rest of a longer one.
    words = lines[0].split(" ", 2) if lines else []
    return HookCall(at, *words) if len(words) == 3 else HookCall(at)


def _read_starts(directory: Path, proc: Path) -> Iterator[GuestStart]:
    """Yield each guest that runs, from the process IDs that libvirt keeps (qemuProcessStart in its qemu_process.c)."""
    for file in sorted(directory.glob("*.pid")) if directory.is_dir() else ():
        # driver.pid is the daemon's own (qemuStateInitialize in libvirt's qemu_driver.c). Guests have their state, too.
        if not (directory / f"{file.stem}.xml").exists():
            continue
        with contextlib.suppress(OSError, ValueError):
            yield GuestStart(file.stem, _read_start_time(proc, int(file.read_text(encoding="ascii"))))


def _read_start_time(proc: Path, pid: int) -> float:
    """Return when a process started, in seconds since 1970 (starttime and btime in proc(5)). Raises OSError."""
    booted_at = next(
        float(line.split()[1]) for line in (proc / "stat").read_text().splitlines() if line.startswith("btime ")
    )
    # The second field is the name in parentheses, which may have spaces.
    fields = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return booted_at + int(fields[19]) / os.sysconf("SC_CLK_TCK")
