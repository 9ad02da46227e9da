"""One side of a relayed connection: a socket that packets with file descriptors are read from and written to."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable

from . import protocol
from .protocol import PacketParser, PacketWithFds

CHUNK = 262_144
"""Bytes to read at once, as many as libvirt puts into a packet of a stream (VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX)."""

HIGH_WATER_MARK = 262_144
"""Bytes that wait to be sent to one side, beyond which nothing is read from the other."""

SEND_BUFFER = 262_144
"""Bytes that the kernel keeps for a peer until it reads (SO_SNDBUF). Linux takes net.core.wmem_max at most, and doubles
that (socket(7)), so that a packet of a stream fits. It does not fit into what a socket has by default."""

_ANCILLARY = socket.CMSG_SPACE(protocol.MAX_FDS * struct.calcsize("i"))


_TRUNCATED = int(socket.MSG_CTRUNC)  # operations on Python's own constant are slow

_BUFFER = bytearray(CHUNK)
RECEIVED = memoryview(_BUFFER)
"""What every socket is read into. The parser copies what it keeps, so that idle connections need no buffer."""

_INTO = [_BUFFER]
_NOT_ANNOUNCED = "file descriptor that was not announced"
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_NOSIGNAL = int(socket.MSG_NOSIGNAL)


class PacketStream:
    """A non-blocking socket.

    Attributes:
        parser: Splits what the socket receives.
        rest: Bytes to come of a packet that is passed on as it arrives, or 0.
        waiting: Bytes that are queued for sending.
        ended: Whether the peer will send nothing more.
    """

    __slots__ = ("_outgoing", "_received", "ended", "parser", "rest", "sock", "waiting")

    def __init__(self, sock: socket.socket, limit: int = protocol.MAX_PACKET) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.sock = sock
        self.parser = PacketParser(limit)
        self.rest = 0
        self.waiting = 0
        self.ended = False
        self._received: deque[int] = deque()
        self._outgoing: deque[tuple[memoryview, int | None]] = deque()

    @property
    def has_output(self) -> bool:
        """Whether something is queued for sending."""
        return bool(self._outgoing)

    @property
    def at_boundary(self) -> bool:
        """Whether what arrives next is the start of a packet."""
        return not self._received and self.parser.is_empty

    def read(self) -> int:
        """Read what has arrived into RECEIVED, up to CHUNK, and return the number of bytes.

        Raises:
            OSError: The connection is broken.
            RemoteProtocolError: More file descriptors arrived at once than the protocol allows.
        """
        return self._read_into(_INTO)

    def read_rest(self) -> int:
        """Read what has arrived of the packet that `rest` belongs to into RECEIVED, and return the number of bytes.

        Raises:
            OSError: The connection is broken.
            RemoteProtocolError: A file descriptor arrived, which such a packet has not.
        """
        size = self._read_into([RECEIVED[: self.rest]])
        if self._received:
            raise protocol.RemoteProtocolError(_NOT_ANNOUNCED)
        self.rest -= size
        return size

    def _read_into(self, buffers: list[bytearray] | list[memoryview]) -> int:
        try:
            size, messages, flags, _ = self.sock.recvmsg_into(buffers, _ANCILLARY, _CLOEXEC)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            # The peer closed without reading all that was sent to it. What it sent before was read already.
            self.ended = True
            return 0
        for level, kind, content in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._received.extend(numbers)
        if flags & _TRUNCATED:
            raise protocol.RemoteProtocolError("more file descriptors at once than the protocol allows")
        self.ended = not size
        return size

    def receive(self) -> None:
        """Read what has arrived for next_packet(). Raises as read() does."""
        self.parser.receive(RECEIVED[: self.read()])

    def next_packet(self) -> PacketWithFds | None:
        """Return the next complete packet with its file descriptors, or None if there is none.

        Raises:
            ProtocolError: The input is malformed.
        """
        packet = self.parser.next_packet()
        if packet is None:
            if len(self._received) != self.parser.fds_read:
                raise protocol.RemoteProtocolError(_NOT_ANNOUNCED)
            return None
        if not packet.fds:
            return PacketWithFds(packet)
        if len(self._received) < packet.fds:
            raise protocol.RemoteProtocolError("announced file descriptor is missing")
        return PacketWithFds(packet, tuple(self._received.popleft() for _ in range(packet.fds)))

    def put(self, item: PacketWithFds) -> None:
        """Queue a packet, and each of its file descriptors with the byte that carries it."""
        packet = item.packet
        self._outgoing.append((memoryview(packet.data), None))
        self.waiting += len(packet.data)
        for number in item.fds[: packet.fds]:
            self._outgoing.append((memoryview(b"\0"), number))
        close_fds(item.fds[packet.fds :])

    def pass_on(self, data: memoryview) -> None:
        """Send bytes of RECEIVED after what is queued, and queue a copy of what the socket does not take.

        Raises:
            OSError: The connection is broken.
        """
        try:
            sent = 0 if self._outgoing else self.sock.send(data, _NOSIGNAL)
        except BlockingIOError:
            sent = 0
        if sent != len(data):
            rest = memoryview(bytes(data[sent:]))
            self._outgoing.append((rest, None))
            self.waiting += len(rest)

    def send(self) -> None:
        """Send as much as the socket takes, and close the file descriptors that were sent.

        Raises:
            OSError: The connection is broken.
        """
        while self._outgoing:
            data, number = self._outgoing[0]
            try:
                if number is None:
                    sent = self.sock.send(data, _NOSIGNAL)
                else:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [number]))]
                    sent = self.sock.sendmsg([data], rights, _NOSIGNAL)
            except BlockingIOError:
                return
            if number is None:
                self.waiting -= sent
            else:
                os.close(number)
            if sent == len(data):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (data[sent:], None)

    def drop_output(self) -> None:
        """Forget what is queued for sending."""
        while self._outgoing:
            _, number = self._outgoing.popleft()
            if number is not None:
                os.close(number)
        self.waiting = 0

    def close(self) -> None:
        """Close the socket, and every file descriptor that was to be sent or was just received."""
        self.drop_output()
        close_fds(self._received)
        self._received.clear()
        self.sock.close()


def close_fds(numbers: Iterable[int]) -> None:
    """Close file descriptors."""
    for number in numbers:
        os.close(number)
