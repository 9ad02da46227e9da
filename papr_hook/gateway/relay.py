"""The relay of one identity: it connects each client of that identity to libvirt, and passes packets both ways.

A client arrives as a file descriptor from the main process. Each is connected to libvirt by a connection of its own,
so that libvirt counts, authorizes and serves it as it would without the gateway.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from ..journal import ERROR, WARNING
from ..virt.locks import AttachLocks
from .connection import Connection
from .identity import describe_peer
from .limited_log import LimitedLog
from .nursery import request_worker
from .protocol import Packet, PacketParser, ProtocolError
from .session import PendingCall, Session
from .streams import RECEIVED
from .worker_protocol import takes_another

LINGER = 10.0
"""Seconds that a relay without clients waits for the next one."""

RETRY = 0.02
"""Seconds between two attempts to acquire a lock, to get a worker or to connect to libvirt."""

TICK = 0.25
"""Seconds between two looks at the deadlines."""

MAX_ANONYMOUS = 10
"""Connections of one user that libvirt has not let in. More of them wait in front of it. That is half of what libvirt
has for all users (max_anonymous_clients in its libvirtd.conf): while those are taken, it accepts nobody. Root needs no
authentication, so libvirt never counts it there."""

MAX_WORKERS = 16
"""Workers of one user at the same time. More calls wait."""

MAX_IDLE_WORKERS = 2
"""Workers that are kept for the user's next call. They count for all users' limit (nursery.MAX_WORKERS)."""

WORKER_LINGER = 2.0
"""Seconds that such a worker waits for a call, far less than its alarm (limits.WALL_SECONDS)."""


class WorkerHandle:
    """The relay's end of the socket to a worker."""

    def __init__(self, relay: Relay, sock: socket.socket, connection: Connection, call: PendingCall) -> None:
        self._relay = relay
        self._sock = sock
        self._parser = PacketParser()
        self._unsent = bytearray()
        self._stopped = False
        self._stays = False
        self.connection = connection
        self.call = call

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._sock.fileno()

    def send(self, packet: Packet) -> None:
        """Send a packet, at once or when the worker has read what was sent before."""
        if not self._stopped:
            self._unsent += packet.data
            self._flush()

    def stop(self) -> None:
        """Keep the worker for another call if it takes one, or close its socket. It ends then, or by its limits."""
        if not self._stopped:
            self._stopped = True
            self._relay.forget_worker(self)
            if self._stays and self._parser.is_empty and not self._unsent:
                self._relay.keep_worker(self._sock)
            else:
                self._sock.close()

    def handle(self, events: int) -> None:
        """Send and receive what is possible now."""
        session = self.connection.session
        if events & select.EPOLLOUT:
            self._flush()
        if self._stopped or not events & ~select.EPOLLOUT:
            return
        try:
            size = self._sock.recv_into(RECEIVED)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        try:
            self._parser.receive(RECEIVED[:size])
            while not self._stopped and (packet := self._parser.next_packet()) is not None:
                self._stays = takes_another(packet)
                session.from_worker(self.call, packet)
        except ProtocolError:
            size = 0
        if not size and not self._stopped:
            session.worker_ended(self.call)
            self.stop()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            self._relay.watch(self, select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            self._unsent.clear()  # it has ended, which reading tells
        self._relay.watch(self, select.EPOLLIN)


class Relay:
    """The event loop."""

    def __init__(
        self, channel: socket.socket, requests: socket.socket, upstream: Path, locks: AttachLocks, uid: int
    ) -> None:
        """Serve the clients that arrive on a channel.

        Args:
            channel: Where the main process sends clients, one file descriptor in each message.
            requests: Nursery.requests.
            upstream: libvirt's own socket.
            locks: The attach locks of all guests.
            uid: Whom the relay serves.
        """
        channel.setblocking(False)
        self._channel = channel
        self._requests = requests
        self._upstream = upstream
        self._locks = locks
        self._max_anonymous = MAX_ANONYMOUS if uid else None
        self.log = LimitedLog()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._events: dict[int, int] = {}
        self._anonymous: set[Connection] = set()
        self._connections: set[Connection] = set()
        self._looked_after: dict[Connection, None] = {}  # in order: who waits longest for libvirt is first
        self._workers: set[WorkerHandle] = set()
        self._idle_workers: dict[socket.socket, float] = {}
        self._accepting = True
        self._idle_since = time.monotonic()

    def run(self) -> None:
        """Serve until the main process has ended or has had no client for a while, and all clients have gone."""
        while self._accepting or self._connections:
            self._watch_channel()
            for number, events in self._epoll.poll(self._timeout()):
                handler = self._handlers.get(number)
                if handler is not None:  # an event before may have ended it
                    handler(events)
            if self._looked_after or self._idle_workers:
                self._look_after()
            if not self._connections and self._accepting and time.monotonic() - self._idle_since >= LINGER:
                self._stop_accepting()

    # For connections and workers

    def watch(self, source: WorkerHandle | socket.socket, events: int) -> None:
        """Wait for events of a registered source."""
        number = source.fileno()
        if number in self._handlers and self._events[number] != events:
            if not events:
                # The kernel reports a hang-up even for no events, which would wake the loop again and again.
                self._epoll.unregister(number)
            elif self._events[number]:
                self._epoll.modify(number, events)
            else:
                self._epoll.register(number, events)
            self._events[number] = events

    def start_worker(self, connection: Connection, call: PendingCall) -> WorkerHandle | None:
        """Return a new worker for a call, or None if it has to wait. Raises OSError."""
        if len(self._workers) >= MAX_WORKERS:
            return None
        sock = self._take_idle_worker() or request_worker(self._requests)
        if sock is None:
            return None
        worker = WorkerHandle(self, sock, connection, call)
        self._workers.add(worker)
        self._register(worker, lambda events: self._guard(connection, connection.on_worker, worker, events))
        self.watch(worker, select.EPOLLIN)
        return worker

    def forget_worker(self, worker: WorkerHandle) -> None:
        """Stop watching a worker."""
        self._unregister(worker)
        self._workers.discard(worker)

    def keep_worker(self, sock: socket.socket) -> None:
        """Keep a worker that takes another call, for a while."""
        if len(self._idle_workers) >= MAX_IDLE_WORKERS:
            sock.close()
            return
        self._idle_workers[sock] = time.monotonic()
        self._register(sock, lambda events: self._drop_idle_worker(sock))  # it has nothing to say, so it has ended
        self.watch(sock, select.EPOLLIN)

    def _take_idle_worker(self) -> socket.socket | None:
        while self._idle_workers:
            sock, _ = self._idle_workers.popitem()
            self._unregister(sock)
            try:
                sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return sock
            except OSError:
                pass
            sock.close()  # it has ended just now
        return None

    def _drop_idle_worker(self, sock: socket.socket) -> None:
        del self._idle_workers[sock]
        self._unregister(sock)
        sock.close()

    def _look_after(self) -> None:
        """Do what is due by now."""
        for connection in list(self._looked_after):
            self._guard(connection, connection.look_after)
        now = time.monotonic()
        for sock in [sock for sock, since in self._idle_workers.items() if now - since > WORKER_LINGER]:
            self._drop_idle_worker(sock)

    # Clients that come and go

    def _watch_channel(self) -> None:
        """Take clients only while libvirt would take them."""
        number = self._channel.fileno()
        full = self._max_anonymous is not None and len(self._anonymous) >= self._max_anonymous
        if self._accepting and not full and number not in self._handlers:
            self._register(self._channel, self._on_channel)
            self.watch(self._channel, select.EPOLLIN)
        elif number in self._handlers and (full or not self._accepting):
            self._unregister(self._channel)

    def _on_channel(self, events: int) -> None:
        self._accept()

    def _accept(self) -> bool:
        """Take a client. Return whether there may be more."""
        try:
            message, fds, _, _ = socket.recv_fds(self._channel, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as error:  # out of memory or file descriptors: the client is lost
            self.log(ERROR, f"cannot take a client: {error.strerror}")
            return False
        if not message:
            self._stop_accepting()
            return False
        if not fds:
            self.log(ERROR, "cannot take a client: too many open files")
        for fd in fds:
            client = socket.socket(fileno=fd)
            self._connect(client, describe_peer(client))
        return True

    def _connect(self, client: socket.socket, description: str) -> None:
        connection: Connection

        def start_worker(call: PendingCall) -> WorkerHandle | None:
            return self.start_worker(connection, call)

        session = Session(description, start_worker, self._locks, self.log)
        connection = Connection(client, self._upstream, session, self.watch)
        self._connections.add(connection)
        self._anonymous.add(connection)
        for stream in (connection.client, connection.daemon):
            self._register(stream.sock, self._handler(connection, stream is connection.client))
        self._guard(connection, connection.connect)

    def _handler(self, connection: Connection, from_client: bool) -> Callable[[int], None]:
        def handle(events: int) -> None:
            self._guard(connection, connection.handle, from_client, events)

        return handle

    def _guard(self, connection: Connection, step: Callable[..., bool | None], *arguments: object) -> None:
        """Take a step of a connection, which returns whether there is nothing to look at afterwards.

        What goes wrong ends this connection and no other one.
        """
        try:
            if step(*arguments):
                return
        except ProtocolError as error:
            self.log(WARNING, f"{connection.session.client}: connection ended: {error}")
            connection.over = True
        except ConnectionError as error:
            # A direct connection would end the same way. Where there is no libvirt, the journal says so.
            if not connection.connected:
                self.log(ERROR, f"{connection.session.client}: cannot connect to {self._upstream}: {error.strerror}")
            connection.over = True
        except Exception as error:
            self.log(ERROR, f"{connection.session.client}: unexpected {type(error).__name__}: {error}")
            connection.over = True
        if connection.over:
            self._end(connection)
            return
        if connection.session.opened:
            self._anonymous.discard(connection)
        if connection.needs_care:
            self._looked_after.setdefault(connection)
        else:
            self._looked_after.pop(connection, None)

    def _end(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._anonymous.discard(connection)
            self._looked_after.pop(connection, None)
            for stream in (connection.client, connection.daemon):
                self._unregister(stream.sock)
            connection.close()
            self._idle_since = time.monotonic()

    def _stop_accepting(self) -> None:
        """Take no more clients, but those that the main process has sent already."""
        if self._accepting:
            self._accepting = False
            with contextlib.suppress(OSError):
                # From now on the main process's send fails, and it starts another relay.
                self._channel.shutdown(socket.SHUT_RD)
            while self._accept():
                pass
            self._unregister(self._channel)

    # The event loop's bookkeeping

    def _register(self, source: WorkerHandle | socket.socket, handler: Callable[[int], None]) -> None:
        self._handlers[source.fileno()] = handler
        self._events[source.fileno()] = 0

    def _unregister(self, source: WorkerHandle | socket.socket) -> None:
        self.watch(source, 0)
        self._handlers.pop(source.fileno(), None)
        self._events.pop(source.fileno(), None)

    def _timeout(self) -> float | None:
        """Return how long nothing has to be done but what events bring."""
        if not self._looked_after:
            return TICK if self._idle_workers else None if self._connections else LINGER
        return RETRY if any(connection.waits for connection in self._looked_after) else TICK
