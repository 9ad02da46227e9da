"""Carry a plan out, and undo all of it if any step fails."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ...errors import SetupError
from .host import DAEMONS, RUN, Host
from .plan import Command, Plan
from .transaction import Transaction, remove

LOCK = "/run/papr-hook.lock"
LOCK_SECONDS = 300.0
"""How long a run waits for another one, which may be restarting libvirt and all that depends on it."""
POLL_SECONDS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptedRunError(SetupError):
    """A signal arrived before anything had changed."""


class _Interruption(BaseException):
    """A signal arrived. The standard library, py_compile for one, handles any Exception as its own."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs out.

    Args:
        path: The lock file, or a directory that is locked itself.

    Raises:
        SetupError: Another run does not end, or the file cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from None
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                raise SetupError(f"another installation still runs: try again once {path} is free (see fuser(1))")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """End what is inside when the user or the system ends the run.

    Raises:
        InterruptedRunError: That happened.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Interruption

    try:
        with _handling(interrupt):
            yield
    except _Interruption:
        raise InterruptedRunError("interrupted; nothing has changed") from None


@contextlib.contextmanager
def uninterruptible() -> Iterator[None]:
    """Have the signals that end a run do nothing.

    They are caught rather than ignored, because a child process would inherit that: a service of sysvinit could then
    never be interrupted.
    """
    with _handling(lambda number, frame: None):
        yield


@contextlib.contextmanager
def _handling(handler: signal._HANDLER) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def apply(plan: Plan, host: Host) -> None:
    """Carry a plan out.

    Args:
        plan: What to do.
        host: Where.

    Raises:
        SetupError: A step failed; everything before it is undone.
    """
    with Transaction(host.root) as files:
        try:
            files.stage(plan.changes)
        except OSError as error:
            raise SetupError(f"{_describe(error)}; nothing has changed") from None
        with uninterruptible():
            ran = False
            try:
                files.commit()
                ran = True
                _run_all(plan.commands, host)
                _verify(plan, host)
            except (OSError, SetupError) as error:
                files.roll_back()
                if ran:
                    _undo(plan, host)
                raise SetupError(f"{_describe(error)}; nothing has changed") from None
            files.finish()
            if plan.cleans_run:
                clean_run(host)


def clean_run(host: Host) -> None:
    """Remove what enabling created below libvirt's run directory."""
    with contextlib.suppress(OSError):
        run = host.path(RUN)
        for entry in list(run.iterdir()):
            if entry.is_symlink() and os.readlink(entry) == f"upstream/{entry.name}":
                entry.unlink()
        if not any(host.listens(daemon.upstream) for daemon in DAEMONS):
            remove(run / "upstream")


def _run_all(commands: tuple[Command, ...], host: Host) -> None:
    units = [command.if_changed for command in commands if command.if_changed]
    changed = {unit for unit in units if host.unit_property(unit, "NeedDaemonReload") == "yes"}
    for command in commands:
        if command.if_changed and command.if_changed not in changed:
            continue
        try:
            host.check_run(command.argv)
        except SetupError as error:
            if not command.may_fail:
                raise SetupError(command.failure or str(error)) from None


def _verify(plan: Plan, host: Host) -> None:
    for daemon in plan.answering:
        if not host.answers(daemon.socket):
            raise SetupError(
                f"{daemon.name} does not answer at {daemon.socket}: see 'journalctl -t papr-hook -u {daemon.name}'"
            )


def _undo(plan: Plan, host: Host) -> None:
    """Run the commands that restore the services. They are tried one by one: each brings the host nearer to before."""
    for command in plan.restore:
        with contextlib.suppress(SetupError):
            host.check_run(command.argv)
    if plan.gated and plan.restarts:
        clean_run(host)


def _describe(error: OSError | SetupError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error)
