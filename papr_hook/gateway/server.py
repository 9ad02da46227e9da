"""The main process: it accepts clients and hands each to the relay of its identity."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from .. import journal
from ..config import Config
from ..journal import ERROR
from ..virt.locks import open_attach_locks
from .identity import Identity, UnservableError, assume_identity, describe_peer, read_identity
from .limited_log import LimitedLog
from .nursery import Nursery
from .processes import OomScore, close_other_fds, name_process, raise_fd_limit, set_oom_score
from .relay import Relay

ACCEPT_RETRY = 0.2
"""Seconds before the next attempt if the host has no memory or file descriptors to accept a client with."""

MAX_WAITING = 5_000
"""Clients of one identity that wait for their relay to take them, as many as libvirt serves at the same time
(max_clients in its libvirtd.conf)."""


@dataclass(frozen=True)
class _Key:
    identity: Identity
    upstream: Path


@dataclass
class _RelayProcess:
    """The main process's end of the channel to a relay, and the clients that did not fit into it yet."""

    channel: socket.socket
    waiting: deque[socket.socket] = field(default_factory=deque)


class Server:
    """Accepts clients until a signal ends the process. Its relays go on then, and serve the clients that they have."""

    def __init__(
        self, upstreams: Mapping[socket.socket, Path], run_dir: Path, load_config: Callable[[], Config]
    ) -> None:
        """Prepare a server.

        Args:
            upstreams: libvirt's own socket for each of the listening ones.
            run_dir: libvirt's run directory.
            load_config: Reads the host's settings.
        """
        self._upstreams = {listener.fileno(): (listener, upstream) for listener, upstream in upstreams.items()}
        self._run_dir = run_dir
        self._nursery = Nursery(load_config)
        self._relays: dict[_Key, _RelayProcess] = {}
        self._keys: dict[int, _Key] = {}
        self._poller = select.poll()
        self._log = LimitedLog()

    def run(self) -> NoReturn:
        """Serve."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects the relays
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, signal.SIG_DFL)  # an init script's shell may have ignored them
        raise_fd_limit()
        gc.freeze()
        self._start_nursery()
        for number, (listener, _) in self._upstreams.items():
            listener.setblocking(False)
            self._poller.register(number, select.POLLIN)
        while True:
            for number, events in self._poller.poll():
                if number in self._upstreams:
                    self._accept(*self._upstreams[number])
                elif number in self._keys:
                    self._on_relay(self._keys[number], events)
                elif number == self._nursery.pidfd:
                    self._poller.unregister(number)
                    self._log(ERROR, "the process that starts workers has ended; it is started again")
                    time.sleep(ACCEPT_RETRY)
                    self._start_nursery()

    def _start_nursery(self) -> None:
        self._nursery.start()
        if self._nursery.pidfd >= 0:
            self._poller.register(self._nursery.pidfd, select.POLLIN)

    def _accept(self, listener: socket.socket, upstream: Path) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # out of memory or file descriptors; the client waits
            self._log(ERROR, f"cannot accept a client: {error.strerror}")
            time.sleep(ACCEPT_RETRY)
            return
        try:
            self._hand_over(client, _Key(read_identity(client), upstream))
        except (OSError, UnservableError) as error:
            self._log(ERROR, f"{describe_peer(client)}: cannot be served: {error}")
            client.close()

    def _hand_over(self, client: socket.socket, key: _Key) -> None:
        """Send a client to the relay of its identity, which may have to be started.

        Raises:
            OSError: The relay cannot be started.
            UnservableError: The relay does not take its clients any more: its user may stop it.
        """
        relay = self._relays.get(key) or self._start_relay(key)
        if len(relay.waiting) >= MAX_WAITING:
            raise UnservableError("its user's relay takes no more clients")
        relay.waiting.append(client)
        self._send_waiting(key)

    def _send_waiting(self, key: _Key) -> None:
        """Send the relay of an identity as many of its clients as its channel has room for."""
        relay = self._relays[key]
        while relay.waiting:
            client = relay.waiting[0]
            try:
                socket.send_fds(relay.channel, [b"c"], [client.fileno()])
            except BlockingIOError:
                break
            except ConnectionError:  # it has just ended, because it had no clients
                relay = self._restart_relay(key)
                continue
            except OSError as error:  # too many file descriptors are on their way to relays
                self._log(ERROR, f"{describe_peer(client)}: cannot be served: {error.strerror}")
            relay.waiting.popleft().close()
        self._poller.modify(relay.channel, select.POLLOUT if relay.waiting else 0)

    def _on_relay(self, key: _Key, events: int) -> None:
        """Note that a relay has ended, or has room for more clients."""
        if events & (select.POLLHUP | select.POLLERR) and not self._relays[key].waiting:
            self._forget_relay(key)
            return
        try:
            self._send_waiting(key)
        except OSError as error:  # no other relay can be started; its clients are cut off
            self._log(ERROR, f"clients of uid {key.identity.uid} cannot be served: {error.strerror}")

    def _restart_relay(self, key: _Key) -> _RelayProcess:
        waiting = self._relays[key].waiting
        self._forget_relay(key)
        relay = self._start_relay(key)
        relay.waiting = waiting
        return relay

    def _start_relay(self, key: _Key) -> _RelayProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if os.fork() == 0:
                _run_relay(key, theirs, self._nursery.requests, self._run_dir)
        ours.setblocking(False)
        relay = self._relays[key] = _RelayProcess(ours)
        self._keys[ours.fileno()] = key
        self._poller.register(ours, 0)  # its end is reported all the same
        return relay

    def _forget_relay(self, key: _Key) -> None:
        channel = self._relays.pop(key).channel
        self._poller.unregister(channel)
        del self._keys[channel.fileno()]
        channel.close()


def _run_relay(key: _Key, channel: socket.socket, requests: socket.socket, run_dir: Path) -> NoReturn:
    """Become the relay of an identity. This never returns into the main process's code."""
    status = 1
    with contextlib.suppress(BaseException):
        status = _relay(key, channel, requests, run_dir)
    os._exit(status)


def _relay(key: _Key, channel: socket.socket, requests: socket.socket, run_dir: Path) -> int:
    """Relay. The order matters: root's rights are for what comes before the identity, and clients come after it."""
    try:
        # No other user's clients may stay open in a process that this user may read or stop.
        close_other_fds({channel.fileno(), requests.fileno()})
        name_process("papr-relay")
        set_oom_score(OomScore.RELAY)
        # All users' relays share these locks, in a directory that only root may enter.
        locks = open_attach_locks(run_dir)
        # libvirt sees who calls connect(2): from here on that is the client, and nothing can take it back.
        assume_identity(key.identity)
        Relay(channel, requests, key.upstream, locks, key.identity.uid).run()
    except UnservableError as error:
        journal.log(ERROR, f"clients of uid {key.identity.uid} cannot be served: {error}")
        return 1
    except BaseException as error:
        journal.log(ERROR, f"relay of uid {key.identity.uid}: unexpected {type(error).__name__}: {error}")
        return 1
    return 0
