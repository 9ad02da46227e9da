"""A worker: the process that rewrites one call, and is killed if that takes too much time or memory.

It has the client's identity, one socket to its relay, and limits that the kernel enforces: neither an endless loop in
a C library nor a huge allocation gets past them.
"""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Callable

from ..config import Config
from ..errors import PaprHookError
from ..journal import one_line
from .protocol import Packet, PacketParser, ProtocolError, Status, Type, build_packet, error_message, string, uint
from .rewrite import ForwardInTwo, LockRequest, RefusalError, Rewrite, UpstreamError, start_rewrite
from .worker_protocol import WORKER_PROGRAM, Message, build_message

CPU_SECONDS = 5
"""CPU time of one rewrite (RLIMIT_CPU). A guest of 31 devices takes some milliseconds."""

WALL_SECONDS = 20
"""Lifetime of a worker that has a call. A call waits 15 s at most, for the lock and for libvirt's answers."""

MEMORY_BYTES = 256 * 1024 * 1024
"""Address space of a worker (RLIMIT_AS), of which an idle one has about a third."""

_CHUNK = 65_536


class RelayGoneError(Exception):
    """The relay has closed its end: nobody waits for an answer any more."""


class RelayChannel:
    """The worker's end of the socket to its relay."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._parser = PacketParser()

    def send(self, packet: Packet) -> None:
        """Send a packet. Raises RelayGoneError."""
        try:
            self._sock.sendall(packet.data, socket.MSG_NOSIGNAL)
        except OSError:
            raise RelayGoneError from None

    def receive(self) -> Packet:
        """Return the next packet. Raises RelayGoneError."""
        while (packet := self._parser.next_packet()) is None:
            try:
                data = self._sock.recv(_CHUNK)
            except OSError:
                data = b""
            if not data:
                raise RelayGoneError
            self._parser.receive(data)
        return packet


def set_limits() -> None:
    """Limit this process, irrevocably.

    The alarm's signal keeps its default action, so that the kernel ends the process whatever runs in it.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(WALL_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (0, 0))


class CallRewriter:
    """Rewrites one call, without I/O: packets of the relay in, packets for the relay out.

    Attributes:
        done: Whether the answer is out, so that nothing more is needed.
    """

    def __init__(self, load_config: Callable[[], Config]) -> None:
        """Prepare a rewrite.

        Args:
            load_config: Reads the host's settings.
        """
        self.done = False
        self._load_config = load_config
        self._rewrite: Rewrite | None = None
        self._out: list[Packet] = []

    def receive(self, packet: Packet) -> list[Packet]:
        """Take a packet of the relay, and return those for it.

        The first packet is the client's call. Each further one answers what the last of the returned ones asked.
        """
        try:
            self._advance(packet)
        except RefusalError as error:
            self._answer(Message.REFUSED, _text(error))
        except (PaprHookError, ProtocolError) as error:
            self._answer(Message.FAILED, _text(error))
        except MemoryError:
            self._answer(Message.FAILED, b"it needs too much memory")
        except Exception as error:  # a bug in here must not cost the client its call
            self._answer(Message.FAILED, b"unexpected " + _text(f"{type(error).__name__}: {error}"))
        out, self._out = self._out, []
        return out

    def _advance(self, packet: Packet) -> None:
        """Take the rewrite on to what it needs next, or to its end."""
        try:
            if self._rewrite is None:
                self._rewrite = start_rewrite(packet, self._load_config, self._log)
                if self._rewrite is None:
                    self._answer(Message.DONE, packet.payload)
                    return
                need = next(self._rewrite)
            elif packet.program == WORKER_PROGRAM:
                need = next(self._rewrite)
            elif packet.status == Status.OK:
                need = self._rewrite.send(packet.payload)
            else:
                need = self._rewrite.throw(UpstreamError(error_message(packet)))
        except StopIteration as end:
            if isinstance(end.value, ForwardInTwo):
                calls = (end.value.first, end.value.second)
                payload = b"".join(uint(call.procedure) + string(call.payload) for call in calls)
                self._answer(Message.DONE_IN_TWO, payload)
            else:
                self._answer(Message.DONE, end.value)
            return
        if isinstance(need, LockRequest):
            self._out.append(build_message(Message.LOCK, need.guest.uuid))
        else:
            self._out.append(build_packet(need.procedure, Type.CALL, 0, Status.OK, need.payload))

    def _answer(self, message: Message, payload: bytes) -> None:
        self.done = True
        self._out.append(build_message(message, payload))

    def _log(self, priority: int, text: str) -> None:
        self._out.append(build_message(Message.LOG, _text(text), priority))


def rewrite_call(channel: RelayChannel, load_config: Callable[[], Config]) -> None:
    """Rewrite the call that the relay sends, and answer.

    Args:
        channel: The way to the relay.
        load_config: Reads the host's settings.

    Raises:
        RelayGoneError: The relay wants no answer any more.
    """
    rewriter = CallRewriter(load_config)
    while not rewriter.done:
        for packet in rewriter.receive(channel.receive()):
            channel.send(packet)


def _text(text: object) -> bytes:
    return one_line(str(text)).encode("utf-8", "replace")
