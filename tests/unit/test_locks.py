"""The lock of a guest: one attach at a time, over all processes, and none for ever."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from papr_hook.virt.locks import ATTACH_LOCK_TIMEOUT, AttachLocks, open_attach_locks

UUID = bytes(range(16))
OTHER = bytes(range(1, 17))


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> int:
    """Return a lock file."""
    path = tmp_path / "attach.lock"
    return os.open(path, os.O_RDWR | os.O_CREAT)


def in_child(file: int, clock: Clock, stop: bool = False) -> int:
    """Acquire the lock in a child, which then waits or is stopped. Return its process id; 0 if it got no lock."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        got = AttachLocks(file, clock).acquire(UUID) is not None
        os.write(writer, b"1" if got else b"0")
        if stop:
            os.kill(os.getpid(), signal.SIGSTOP)
        signal.pause()
    got = os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)
    if not got:
        end(child)
    return child if got else 0


def end(child: int) -> None:
    """Kill a child."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_one_at_a_time_in_one_process(file: int) -> None:
    """A second call waits until the first one releases; another guest does not."""
    locks = AttachLocks(file)
    first = locks.acquire(UUID)
    assert first is not None
    assert locks.acquire(UUID) is None
    assert locks.acquire(OTHER) is not None
    first.release()
    first.release()
    assert locks.acquire(UUID) is not None


def test_one_at_a_time_over_processes(file: int) -> None:
    """A process that ends gives its lock back."""
    locks = AttachLocks(file)
    child = in_child(file, Clock())
    assert child
    assert AttachLocks(file, Clock()).acquire(UUID) is None
    end(child)
    assert locks.acquire(UUID) is not None


def test_a_lock_expires_and_one_waiter_gets_it(file: int) -> None:
    """A stopped process holds nobody up for longer than the timeout, and its lock goes to one waiter alone."""
    clock = Clock()
    stopped = in_child(file, clock, stop=True)
    assert stopped
    first, second = AttachLocks(file, clock), in_child(file, clock)
    assert first.acquire(UUID) is None and not second
    clock.now += ATTACH_LOCK_TIMEOUT + 1
    lock = first.acquire(UUID)
    assert lock is not None
    assert not in_child(file, clock)
    end(stopped)
    assert not in_child(file, clock)
    lock.release()
    third = in_child(file, clock)
    assert third
    end(third)


def test_an_expired_lock_of_the_same_process(file: int) -> None:
    """A call that got no answer in time does not release the lock of the next one."""
    clock = Clock()
    locks = AttachLocks(file, clock)
    first = locks.acquire(UUID)
    clock.now += ATTACH_LOCK_TIMEOUT + 1
    second = locks.acquire(UUID)
    assert first is not None and second is not None
    first.release()
    assert locks.acquire(UUID) is None
    assert not in_child(file, clock)
    second.release()
    assert locks.acquire(UUID) is not None


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a lock file, attaches of one process still wait for each other."""
    (tmp_path / "papr-hook").write_text("")
    locks = open_attach_locks(tmp_path)
    assert locks.acquire(UUID) is not None
    assert locks.acquire(UUID) is None


def test_the_file_is_for_root_alone(tmp_path: Path) -> None:
    """Others neither read nor lock it."""
    assert open_attach_locks(tmp_path).acquire(UUID) is not None
    path = tmp_path / "papr-hook" / "attach.lock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
