"""A client's connection: two sockets and a session."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from . import protocol
from .passage import measure_from_client, measure_from_daemon
from .protocol import PacketWithFds
from .session import Session
from .streams import HIGH_WATER_MARK, RECEIVED, PacketStream, close_fds

PREAUTH_MAX_PACKET = 2 * protocol.MAX_SASL_DATA
"""The longest packet of a client that libvirt has not let in, in bytes. SASL's data is the most that it may send."""

SLOW_CLIENT_TIMEOUT = 5.0
"""Seconds after which a client that does not read keeps no other client from attaching to a guest."""

_EPOLLOUT = int(select.EPOLLOUT)


class WorkerSocket(Protocol):
    """The socket to a worker."""

    def handle(self, events: int) -> None:
        """Send and receive what is possible now."""


class Connection:
    """Passes packets between a client and libvirt until one of them has gone.

    Attributes:
        connected: Whether libvirt has accepted the connection.
        over: Whether the connection has ended, so that it has to be closed.
    """

    def __init__(
        self, client: socket.socket, upstream: Path, session: Session, watch: Callable[[socket.socket, int], None]
    ) -> None:
        """Prepare a connection.

        Args:
            client: The client's socket.
            upstream: libvirt's own socket.
            session: What happens to the packets.
            watch: Called with a socket and the events to wait for.
        """
        self.client = PacketStream(client, PREAUTH_MAX_PACKET)
        self.daemon = PacketStream(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self.session = session
        self.connected = False
        self.over = False
        self._upstream = upstream
        self._watch = watch
        self._blocked_since: float | None = None

    @property
    def waits(self) -> bool:
        """Whether look_after() has to be called again soon."""
        return not self.connected or self.session.waits

    @property
    def needs_care(self) -> bool:
        """Whether look_after() has to be called now and then."""
        return not self.connected or self._blocked_since is not None or self.session.busy

    def connect(self) -> None:
        """Connect to libvirt, or have look_after() try again if too many clients wait there. Raises OSError."""
        try:
            self.daemon.sock.connect(str(self._upstream))
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionError(error.errno, error.strerror) from None
        self.connected = True
        self._update()

    def handle(self, from_client: bool, events: int) -> bool:
        """Act on events of one of the two sockets. Return whether all else about the connection is as it was.

        Raises:
            OSError: The connection to libvirt is broken.
            ProtocolError: One side sent malformed data.
        """
        stream, other = (self.client, self.daemon) if from_client else (self.daemon, self.client)
        if events & ~_EPOLLOUT and not stream.ended:
            take = self._pass_rest if stream.rest else self._receive
            if take(stream, other):
                return True
            if self.client.ended:
                # Its calls are carried out, as libvirt does it with those that it has read.
                self.session.client_gone()
        self._update()
        return False

    def _receive(self, stream: PacketStream, other: PacketStream) -> bool:
        """Take the packets that have arrived. Return whether all of them have been sent on."""
        size = stream.read()
        passed = self._pass_packets(stream, other, size) if stream.at_boundary else 0
        if passed and passed == size and not other.has_output:
            return True
        stream.parser.receive(RECEIVED[passed:size])
        take = self.session.from_client if stream is self.client else self.session.from_daemon
        while (item := stream.next_packet()) is not None:
            take(item)
        return False

    def _pass_packets(self, stream: PacketStream, other: PacketStream, size: int) -> int:
        """Send on what has been received, as far as it is packets that nothing is done with. Return their bytes."""
        if stream is self.client:
            if not self.connected:
                return 0
            # A packet of the gateway's own could not be sent before the rest of an incomplete one.
            whole = not (self.session.opened and self.session.quiet)
            passed = measure_from_client(RECEIVED, size, stream.parser.limit, self.session.opened, whole)
        elif other.ended:
            return 0
        else:
            passed = measure_from_daemon(RECEIVED, size)
        if passed > size:
            stream.rest = passed - size
            passed = size
        if passed:
            self._send_on(other, passed)
        return passed

    def _pass_rest(self, stream: PacketStream, other: PacketStream) -> bool:
        """Send on what has arrived of an incomplete packet. Return whether more of it may come at once."""
        if other.has_output:
            return False
        size = stream.read_rest()
        self._send_on(other, size)
        return size > 0 and stream.rest > 0 and not other.has_output

    def _send_on(self, other: PacketStream, size: int) -> None:
        if other is self.daemon:
            other.pass_on(RECEIVED[:size])
        elif not other.ended:
            with contextlib.suppress(OSError):  # it has gone; what it sent before is still read
                other.pass_on(RECEIVED[:size])

    def on_worker(self, worker: WorkerSocket, events: int) -> None:
        """Act on events of a worker's socket. Raises as handle() does."""
        worker.handle(events)
        self._update()

    def look_after(self) -> None:
        """Do what is due by now. Raises as handle() does."""
        if not self.connected:
            self.connect()
            return
        self.session.expire()
        self.session.retry()
        if self._blocked_since is not None and time.monotonic() - self._blocked_since > SLOW_CLIENT_TIMEOUT:
            self.session.give_up_all("the client does not read what libvirt sends it")
        self._update()

    def close(self) -> None:
        """Close both sockets and end the session."""
        self.session.close()
        for queue in (self.session.to_daemon, self.session.to_client):
            while queue:
                close_fds(queue.popleft().fds)
        self._close_unwanted()
        self.client.close()
        self.daemon.close()

    def _close_unwanted(self) -> None:
        close_fds(self.session.unwanted_fds)
        self.session.unwanted_fds.clear()

    def _update(self) -> None:
        """Send what is to be sent, and wait for what may happen next."""
        self._close_unwanted()
        if self.session.opened:
            self.client.parser.limit = protocol.MAX_PACKET
        _queue(self.session.to_daemon, self.daemon, self.client)
        self.daemon.send()
        _queue(self.session.to_client, self.client, self.daemon)
        self._send_to_client()
        if self.client.ended:
            self.over = self.daemon.ended or (self.session.finished and not self.daemon.has_output)
        else:
            self.over = self.daemon.ended and not self.client.has_output
        if not self.over:
            self._watch(self.client.sock, _interest(self.client, self.daemon))
            self._watch(self.daemon.sock, _interest(self.daemon, self.client))

    def _send_to_client(self) -> None:
        if not self.client.ended:
            before = self.client.waiting
            try:
                self.client.send()
            except OSError:
                self.client.drop_output()  # it has gone; what it sent before is still read
            moved = self.client.waiting < before
            if not _is_held_up(self.daemon, self.client):
                self._blocked_since = None
            elif moved or self._blocked_since is None:
                self._blocked_since = time.monotonic()
        else:
            self.client.drop_output()
            self._blocked_since = None


def _queue(packets: deque[PacketWithFds], stream: PacketStream, other: PacketStream) -> None:
    while packets and not other.rest:
        stream.put(packets.popleft())


def _is_held_up(stream: PacketStream, other: PacketStream) -> bool:
    """Return whether a stream is not read until the other one has sent what is queued."""
    return other.waiting >= HIGH_WATER_MARK or (stream.rest > 0 and other.has_output)


def _interest(stream: PacketStream, other: PacketStream) -> int:
    events = select.EPOLLIN if not (stream.ended or _is_held_up(stream, other)) else 0
    return events | (select.EPOLLOUT if stream.has_output else 0)
