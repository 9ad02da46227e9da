"""The nursery: a process that has loaded what a rewrite needs, and forks workers.

It keeps one worker ready, which takes the next request from a socket that all relays share. A request is one end of a
socket pair and nothing else, so the nursery itself never sees a byte of a client. The worker assumes the identity of
the process that made the pair: the kernel knows it, and no relay can claim another one.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import NoReturn

from .. import journal
from ..config import Config
from .identity import UnservableError, assume_identity, read_identity
from .limits import LIFETIME, WorkerLimits
from .processes import OomScore, close_other_fds, name_process, set_oom_score

MAX_WORKERS = 64
"""Workers of all clients at the same time. More requests wait in the socket."""

_POLL_MS = 500
_NOTICE = struct.Struct("=i")
"""The process id of a worker that has taken a request, or _NO_RELAYS."""
_NO_RELAYS = 0

_SAMPLE = (
    b"<domain type='qemu'><name>warm-up</name><memory>1</memory><os><type arch='ppc64' machine='pseries'>hvm</type>"
    b"</os><devices><interface type='user'/></devices></domain>"
)


class Nursery:
    """The relays' and the main process's side.

    Attributes:
        requests: Where relays send their requests.
        pid: The process, or 0 before it is started.
        pidfd: Readable when the process has ended, or -1 if the kernel has no pidfds.
    """

    def __init__(self, load_config: Callable[[], Config]) -> None:
        self.requests, self._serving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.requests.setblocking(False)
        self.pid = 0
        self.pidfd = -1
        self._load_config = load_config

    def start(self) -> None:
        """Fork the process, for the first time or after it has ended. Requests that wait are not lost."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        child = os.fork()
        if child == 0:
            _run_and_exit(lambda: _serve(self._serving, self._load_config))
        self.pid = child
        with contextlib.suppress(OSError, AttributeError):
            self.pidfd = os.pidfd_open(child)


def request_worker(requests: socket.socket) -> socket.socket | None:
    """Return the socket to a new worker, or None if too many requests wait already.

    Args:
        requests: Nursery.requests.

    Raises:
        OSError: The nursery has ended, or this process has no file descriptors left.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            socket.send_fds(requests, [b"w"], [theirs.fileno()])
        except BlockingIOError:
            ours.close()
            return None
        except OSError:
            ours.close()
            raise
    ours.setblocking(False)
    return ours


def _run_and_exit(run: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        run()
        status = 0
    except UnservableError as error:
        journal.log(journal.ERROR, f"a worker process: {error}")
    except BaseException as error:
        journal.log(journal.ERROR, f"unexpected {type(error).__name__} in a helper process: {error}")
    finally:
        os._exit(status)


def _serve(serving: socket.socket, load_config: Callable[[], Config]) -> None:
    """Fork workers until no relay is left that could ask for one."""
    close_other_fds({serving.fileno()})
    name_process("papr-nursery")
    set_oom_score(OomScore.RELAY)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _warm_up()
    gc.disable()  # a worker collects between two calls
    gc.freeze()  # and then leaves alone what is here already, so that it goes on sharing this memory
    notice, notify = os.pipe()
    poller = select.poll()
    poller.register(notice, select.POLLIN)
    workers: dict[int, float | None] = {}
    while True:
        if None not in workers.values() and len(workers) < MAX_WORKERS:
            workers[_fork_worker(serving, notify, load_config)] = None
        if poller.poll(_POLL_MS):
            (taken_by,) = _NOTICE.unpack(os.read(notice, _NOTICE.size))
            if taken_by == _NO_RELAYS:
                return
            if taken_by in workers:
                workers[taken_by] = time.monotonic()
        _reap(workers)


def _reap(workers: dict[int, float | None]) -> None:
    """Collect the workers that have ended, and kill those that should have.

    Args:
        workers: When each worker has taken its request, or None, by its process id.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            workers.pop(ended, None)
    for pid, since in workers.items():
        if since is not None and time.monotonic() - since > LIFETIME:
            os.kill(pid, signal.SIGKILL)  # not collected yet, so no other process has this number


def _warm_up() -> None:
    """Load everything that a rewrite uses, also what the libraries load when they are used first."""
    from .. import pipeline
    from . import rewrite, worker  # noqa: F401

    with contextlib.suppress(Exception):
        pipeline.analyze(_SAMPLE, Config()).apply_layout()


def _fork_worker(serving: socket.socket, notify: int, load_config: Callable[[], Config]) -> int:
    child = os.fork()
    if child == 0:
        _run_and_exit(lambda: _work(serving, notify, load_config))
    return child


def _work(serving: socket.socket, notify: int, load_config: Callable[[], Config]) -> None:
    from .worker import RelayChannel, RelayGoneError, rewrite_calls

    set_oom_score(OomScore.WORKER)  # the file is root's, so this comes before the identity
    name_process("papr-worker")
    _, fds, _, _ = socket.recv_fds(serving, 1, 1)
    if not fds:
        os.write(notify, _NOTICE.pack(_NO_RELAYS))
        return
    os.write(notify, _NOTICE.pack(os.getpid()))
    with socket.socket(fileno=fds[0]) as sock:
        # First nothing of the other processes, then the limits, then the identity; only then a byte of the client.
        close_other_fds({sock.fileno()})
        limits = WorkerLimits()
        assume_identity(read_identity(sock))
        with contextlib.suppress(RelayGoneError):
            rewrite_calls(RelayChannel(sock), load_config, limits)
