"""A worker: the process that rewrites calls of one identity, and is killed if one takes too much time or memory.

It has the client's identity, one socket to its relay, and limits that the kernel enforces: neither an endless loop in
a C library nor a huge allocation gets past them.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from ..config import Config
from ..errors import PaprHookError
from ..journal import one_line
from .protocol import Packet, PacketParser, ProtocolError, Status, Type, build_packet, error_message, string, uint
from .rewrite import ForwardInTwo, LockRequest, RefusalError, Rewrite, UpstreamError, start_rewrite
from .worker_protocol import STAYS, WORKER_PROGRAM, Message, build_message

_CHUNK = 65_536


class RelayGoneError(Exception):
    """The relay has closed its end: nobody waits for an answer any more."""


class RelayChannel:
    """The worker's end of the socket to its relay."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._parser = PacketParser()

    def send(self, packets: Sequence[Packet]) -> None:
        """Send packets. Raises RelayGoneError."""
        try:
            self._sock.sendall(b"".join(packet.data for packet in packets), socket.MSG_NOSIGNAL)
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


class Limits(Protocol):
    """What bounds the calls of a worker: limits.WorkerLimits, or nothing in a test."""

    def begin_call(self) -> None:
        """Give the next call its time."""

    def allow_another(self) -> bool:
        """Return whether there is time and memory for another call."""


class CallRewriter:
    """Rewrites one call, without I/O: packets of the relay in, packets for the relay out.

    Attributes:
        done: Whether the answer is out, so that nothing more is needed.
        stays: Whether the answer says that this process takes another call.
    """

    def __init__(self, load_config: Callable[[], Config], allow_another: Callable[[], bool] = lambda: False) -> None:
        """Prepare a rewrite.

        Args:
            load_config: Reads the host's settings.
            allow_another: Tells whether this process may take another call.
        """
        self.done = False
        self.stays = False
        self._load_config = load_config
        self._allow_another = allow_another
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
        # A process in which something went wrong takes no other call.
        self.stays = message != Message.FAILED and self._allow_another()
        self.done = True
        self._out.append(build_message(message, payload, STAYS if self.stays else 0))

    def _log(self, priority: int, text: str) -> None:
        self._out.append(build_message(Message.LOG, _text(text), priority))


def rewrite_calls(channel: RelayChannel, load_config: Callable[[], Config], limits: Limits) -> None:
    """Rewrite the calls that the relay sends, one after another, until one was the last.

    Args:
        channel: The way to the relay.
        load_config: Reads the host's settings, for each call anew.
        limits: What each call may use.

    Raises:
        RelayGoneError: The relay wants no answer any more.
    """
    stays = True
    while stays:
        packet = channel.receive()
        limits.begin_call()
        rewriter = CallRewriter(load_config, limits.allow_another)
        channel.send(rewriter.receive(packet))
        while not rewriter.done:
            channel.send(rewriter.receive(channel.receive()))
        stays = rewriter.stays
        del packet, rewriter
        gc.collect()  # nobody waits now


def _text(text: object) -> bytes:
    return one_line(str(text)).encode("utf-8", "replace")
