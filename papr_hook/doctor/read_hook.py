"""Read what there is to know about the hook of this host."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..config import STATE_DIR
from ..virt.hook_files import ENVIRONMENT, HOOK_DIR, HookFile, read_hooks
from .facts import GuestStart, HookCall, HookFacts

LOAD_SECONDS: Final = 10.0
"""Longer than hooks/qemu lets Python run."""


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
        _read_call(run_dir / STATE_DIR / "last-call"),
        max(_read_starts(run_dir / "qemu", proc), key=lambda start: start.at, default=None),
    )


def _find_failure(hook: HookFile) -> str:
    """Return why Python cannot load the modules of the hook, or "".

    The hook itself runs Python, because only its way of doing so decides where Python looks for modules.
    """
    library = hook.library
    if library is None:
        return ""
    if not (library / "papr_hook").is_dir():
        return f"{library}/papr_hook does not exist"
    try:
        done = subprocess.run(
            ["/bin/sh", str(hook.path), "-", "doctor", "load", "-"],  # it may not be executable
            cwd="/",  # libvirt runs hooks there
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LOAD_SECONDS,
        )
    except OSError as error:
        return f"{hook.path}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"it took more than {LOAD_SECONDS:.0f} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    if done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):  # by timeout(1), in hooks/qemu
        lines.append("it took too long")
    return lines[-1] if lines else f"exit status {done.returncode}"


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
