"""A lock for each guest, so that one attach at a time chooses a vPHB.

All gateway processes and `papr-hook attach` share one file. A lock is a POSIX record lock on one byte, which the
kernel releases when its process ends. A process may also be stopped, or wait for a client that does not read, so a
lock expires. The file has an entry for each guest: a generation, and the time when the lock was last acquired. When
that lock has expired, the next generation has another byte. The first waiter that locks it writes the entry.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config import STATE_DIR
from ..journal import WARNING, log

ATTACH_LOCK_TIMEOUT = 30.0
"""Seconds until a lock expires, as long as libvirt waits for another job of a guest
(VIR_JOB_WAIT_TIME in its src/hypervisor/domain_job.c, QEMU_JOB_WAIT_TIME before libvirt 9.1)."""

_ENTRY = struct.Struct("=Qd")
"""Generation, and the monotonic clock's seconds of the last acquisition."""
_ENTRIES = 4096
"""Guests with the same entry wait for each other."""
_GENERATIONS = 1 << 32


@dataclass(frozen=True)
class AttachLock:
    """An acquired lock. Release it when libvirt has replied to the attach.

    Attributes:
        locks: The locks that it is from.
        entry: The number of the guest's entry.
        generation: The generation of the entry.
        since: When it was acquired, by the clock of the locks.
    """

    locks: AttachLocks
    entry: int
    generation: int
    since: float

    def release(self) -> None:
        """Release the lock, also if it has expired or was released before."""
        self.locks.release(self)


class AttachLocks:
    """The attach locks of all guests, as one process sees them."""

    def __init__(self, fd: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Use a lock file.

        Args:
            fd: The open file.
            clock: A clock that all processes share, in seconds.

        Raises:
            OSError: The file system has no room for the file.
        """
        os.posix_fallocate(fd, 0, _ENTRIES * _ENTRY.size)  # so that no later write fails
        self._fd = fd
        self._clock = clock
        self._acquired: dict[int, AttachLock] = {}

    def acquire(self, uuid: bytes) -> AttachLock | None:
        """Return the lock of a guest, or None if another attach has it.

        Args:
            uuid: The 16 bytes of the guest's UUID.
        """
        entry = int.from_bytes(uuid[:8], "big") % _ENTRIES
        own = self._acquired.get(entry)
        if own is not None and not self._has_expired(own.since):
            return None
        generation, since = self._read(entry)
        if (own is not None and own.generation == generation) or not self._lock(entry, generation):
            generation += 1
            if not self._has_expired(since) or not self._lock(entry, generation):
                return None
        if self._read(entry)[0] > generation:
            self._unlock(entry, generation)
            return None
        lock = AttachLock(self, entry, generation, self._clock())
        os.pwrite(self._fd, _ENTRY.pack(generation, lock.since), entry * _ENTRY.size)
        self._acquired[entry] = lock
        return lock

    def release(self, lock: AttachLock) -> None:
        """Release a lock that acquire() returned."""
        if self._acquired.get(lock.entry) is lock:
            del self._acquired[lock.entry]
            self._unlock(lock.entry, lock.generation)

    def _has_expired(self, since: float) -> bool:
        return not 0 <= self._clock() - since <= ATTACH_LOCK_TIMEOUT

    def _read(self, entry: int) -> tuple[int, float]:
        generation, since = _ENTRY.unpack(os.pread(self._fd, _ENTRY.size, entry * _ENTRY.size))
        return generation, since

    def _lock(self, entry: int, generation: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(entry, generation))
        except (BlockingIOError, PermissionError):  # lockf(3): the one or the other
            return False
        return True

    def _unlock(self, entry: int, generation: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _byte(entry, generation))


def _byte(entry: int, generation: int) -> int:
    return entry * _GENERATIONS + generation % _GENERATIONS


def open_attach_locks(run_dir: Path) -> AttachLocks:
    """Return the attach locks of this host.

    If the lock file cannot be opened, the journal says so, and the locks are those of this process only.

    Args:
        run_dir: libvirt's run directory.
    """
    path = run_dir / STATE_DIR / "attach.lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return AttachLocks(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        log(WARNING, f"{path}: {error.strerror}; concurrent attaches are not serialized")
        return AttachLocks(os.memfd_create("attach.lock"))
