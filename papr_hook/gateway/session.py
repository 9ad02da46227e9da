"""One client's conversation with libvirt, without I/O: packets of both in, packets to both out.

Questions to libvirt are calls of the gateway's own on the client's connection: so libvirt answers them as it would the
client, by the same authentication, driver and rights, and there is nothing to open, to log in to, or to keep in step.
Their serials are ones that no client counts up to, and their replies stay here.
"""

from __future__ import annotations

import syslog
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from ..config import Config
from ..errors import PaprHookError
from ..virt.locks import ATTACH_LOCK_TIMEOUT, AttachLock, AttachLocks
from . import protocol
from .protocol import DomainRef, Packet, PacketWithFds, Procedure, Status, Type
from .rewrite import (
    Call,
    ForwardAs,
    LockRequest,
    Log,
    RefusalError,
    Rewrite,
    UpstreamError,
    describe_call,
    start_rewrite,
)

FIRST_SERIAL = 0x80000000
"""libvirt's clients count from 1 (src/rpc/virnetclientprogram.c, src/remote/remote_driver.c)."""

MAX_PENDING_CALLS = 5
"""Calls of one client that are being rewritten, before no more is read from it: as many as libvirt itself serves at
once (max_client_requests in its libvirtd.conf)."""


@dataclass
class PendingCall:
    """A call that is being rewritten. rewrite: its rewriting; guest: the one whose lock it needs."""

    item: PacketWithFds
    rewrite: Rewrite
    guest: DomainRef | None = None
    since: float = 0.0
    lock: AttachLock | None = None


class Session:
    """A conversation. to_daemon, to_client: what is to be sent to whom, in order; whoever sends it empties them.

    opened: whether libvirt has let the client in. load_config: reads the host's settings; log: writes to the journal;
    clock: a monotonic one, in seconds; limit: what a step of a rewrite runs in, which raises if that takes too long.
    """

    def __init__(
        self,
        load_config: Callable[[], Config],
        log: Log,
        locks: AttachLocks,
        clock: Callable[[], float] = time.monotonic,
        limit: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.to_daemon: deque[PacketWithFds] = deque()
        self.to_client: deque[PacketWithFds] = deque()
        self.opened = False
        self._load_config = load_config
        self._log = log
        self._locks = locks
        self._clock = clock
        self._limit = limit
        self._asked: dict[int, PendingCall] = {}
        self._queued: list[PendingCall] = []
        self._reserved: dict[int, AttachLock] = {}
        self._replaced: dict[int, Packet] = {}
        self._serial = FIRST_SERIAL

    @property
    def full(self) -> bool:
        """Whether nothing more should be read from the client for now."""
        return len(self._asked) + len(self._queued) >= MAX_PENDING_CALLS

    @property
    def waits(self) -> bool:
        """Whether a call waits for another client's reservation: then retry() is to be called now and then."""
        return bool(self._queued)

    def from_client(self, item: PacketWithFds) -> None:
        """Take a packet that the client sent."""
        try:
            rewrite = start_rewrite(item.packet, self._load_config, self._log)
        except Exception as error:
            self._give_up(item, error)
            return
        if rewrite is None:
            self.to_daemon.append(item)
        else:
            self._go_on(PendingCall(item, rewrite), None)

    def from_daemon(self, item: PacketWithFds) -> None:
        """Take a packet that libvirt sent."""
        packet = item.packet
        if (packet.program, packet.procedure, packet.type) == (protocol.PROGRAM, Procedure.CONNECT_OPEN, Type.REPLY):
            self.opened = self.opened or packet.status == Status.OK
        if packet.program != protocol.PROGRAM or packet.type not in (Type.REPLY, Type.REPLY_WITH_FDS):
            self.to_client.append(item)
            return
        if packet.serial in self._reserved:
            self._reserved.pop(packet.serial).release()
        if packet.serial in self._replaced:
            packet = protocol.build_reply(self._replaced.pop(packet.serial), packet)
            item = PacketWithFds(packet)
        held = self._asked.pop(packet.serial, None)
        if held is None:
            self.to_client.append(item)
        else:
            self._go_on(held, packet)

    def retry(self) -> None:
        """Try again to reserve the guests that calls wait for."""
        queued, self._queued = self._queued, []
        for held in queued:
            self._reserve(held)

    def _go_on(self, held: PendingCall, reply: Packet | None) -> None:
        """Take a rewriting on to what it needs next, or to its end."""
        call = held.item
        try:
            with self._limit():
                need = self._next(held, reply)
        except StopIteration as done:
            if isinstance(done.value, ForwardAs):
                self._forward_as(held, done.value)
            else:
                self._forward(held, done.value)
        except RefusalError as refusal:
            self._log(syslog.LOG_WARNING, str(refusal).replace("papr-hook: ", "", 1))
            self._release(held)
            self.to_client.append(PacketWithFds(protocol.error_reply(call.packet, str(refusal)), call.fds))
        except Exception as error:  # whatever it is, the client must not suffer for it
            self._release(held)
            self._give_up(call, error)
        else:
            if isinstance(need, Call):
                self._ask(held, need)
            else:
                held.guest, held.since = need.guest, self._clock()
                self._reserve(held)

    def _next(self, held: PendingCall, reply: Packet | None) -> Call | LockRequest:
        if reply is None:
            return next(held.rewrite)
        if reply.status != Status.OK:
            return held.rewrite.throw(UpstreamError(protocol.error_message(reply)))
        return held.rewrite.send(reply.payload)

    def _ask(self, held: PendingCall, question: Call) -> None:
        self._serial += 1
        self._asked[self._serial] = held
        call = protocol.build_packet(question.procedure, Type.CALL, self._serial, Status.OK, question.payload)
        self.to_daemon.append(PacketWithFds(call))

    def _reserve(self, held: PendingCall) -> None:
        assert held.guest is not None
        held.lock = self._locks.acquire(held.guest.uuid)
        if held.lock is not None:
            self._go_on(held, None)
        elif self._clock() - held.since > ATTACH_LOCK_TIMEOUT:
            # Should both take the same vPHB, libvirt refuses the second its address.
            text = f"guest '{held.guest.name}': another attach to it does not end, and is not waited for"
            self._log(syslog.LOG_WARNING, text)
            self._go_on(held, None)
        else:
            self._queued.append(held)

    def _release(self, held: PendingCall) -> None:
        if held.lock is not None:
            held.lock.release()

    def _forward(self, held: PendingCall, payload: bytes) -> None:
        """Send a call on; in the very bytes where nothing changed."""
        item = held.item
        if payload != item.packet.payload:
            try:
                item = PacketWithFds(item.packet.with_payload(payload), item.fds)
            except protocol.ProtocolError as error:
                self._release(held)
                self._give_up(item, error)
                return
        if held.lock is not None:
            self._reserved[item.packet.serial] = held.lock
        self.to_daemon.append(item)

    def _forward_as(self, held: PendingCall, other: ForwardAs) -> None:
        """Forward another call under the serial of the client's."""
        packet = held.item.packet
        self._replaced[packet.serial] = packet
        call = protocol.build_packet(other.procedure, Type.CALL, packet.serial, Status.OK, other.payload)
        self.to_daemon.append(PacketWithFds(call, held.item.fds))

    def _give_up(self, item: PacketWithFds, error: Exception) -> None:
        """Send a call on as it is, and tell the journal why."""
        known = isinstance(error, (PaprHookError, protocol.ProtocolError, TimeoutError))
        text = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        self._log(syslog.LOG_WARNING, f"{describe_call(item.packet)} goes to libvirt as it is: {text}")
        self.to_daemon.append(item)
