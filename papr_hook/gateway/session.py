"""One connection between a client and libvirt, without I/O: packets of both in, packets to both out.

Nothing of a client is looked at before libvirt has let it in. From then on, a call that may be rewritten is held, and
a worker rewrites it: another process, because that means parsing what a client sent. The worker's questions to libvirt
are calls on the client's own connection. So libvirt answers them with the client's rights, and there is nothing else
to open or to authenticate. Their replies are not forwarded to the client.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..journal import ERROR, WARNING, one_line
from ..virt.locks import AttachLock, AttachLocks
from . import protocol
from .calls import CALL_TYPES, describe_call, is_rewritten
from .protocol import Packet, PacketWithFds, Procedure, ProtocolError, Reader, Status, Type
from .worker_protocol import WORKER_PROGRAM, Message, build_message

FIRST_SERIAL = 0x80000000
"""The gateway's own calls have serials from here on. libvirt's clients count from 1 (src/rpc/virnetclientprogram.c),
and a reply is matched by its procedure as well, so that a client may get there."""

MAX_SERIAL = 0xFFFFFFFF

MAX_PENDING_CALLS = 5
"""Calls of one client that are rewritten at the same time, as many as libvirt serves of one client at the same time
(max_client_requests in its libvirtd.conf). More calls wait."""

MAX_HELD_BYTES = 8_388_608
"""Bytes of one client's calls that are held. Further calls are forwarded unmodified."""

MAX_DELAYED_CALLS = 16
"""Calls of one client whose serial is that of a call of the gateway's own. No client of libvirt's has any."""

HELD_CALL_TIMEOUT = 15.0
"""Seconds after which a held call is forwarded unmodified, wherever its rewrite is. libvirt itself waits 30 s for
another job of a guest (VIR_JOB_WAIT_TIME in its src/hypervisor/domain_job.c)."""

_Key = tuple[int, int]
"""Procedure and serial, by which libvirt's reply finds its call."""


class Worker(Protocol):
    """A process that rewrites a call."""

    def send(self, packet: Packet) -> None:
        """Send a packet to it. One that has ended gets none, and that is no error."""

    def stop(self) -> None:
        """Give it up: it has answered, or its answer is not wanted any more."""


@dataclass(eq=False)
class PendingCall:
    """A call that is held.

    Attributes:
        deadline: When it is forwarded unmodified, by the session's clock.
        worker: What rewrites it, or None if it waits for one.
        lock_of: The guest whose lock it waits for, or None.
        lock: The lock that it has, or None.
        instead_of: The client's call in whose place this one is sent, or None if this one is the client's.
    """

    item: PacketWithFds
    deadline: float
    worker: Worker | None = None
    lock_of: bytes | None = None
    lock: AttachLock | None = None
    instead_of: PacketWithFds | None = None


@dataclass(frozen=True)
class _Replaced:
    """A call of the client's, in whose place another one is under way, and the call that follows that one."""

    item: PacketWithFds
    then: Packet | None = None


StartWorker = Callable[[PendingCall], "Worker | None"]
"""Start a worker for a call, or return None if it has to wait for one. Raises OSError."""


@dataclass(eq=False)
class Session:
    """The state of one connection.

    Attributes:
        client: What messages call the client.
        start_worker: Starts a worker. What it sends comes back through from_worker().
        locks: The attach locks.
        log: Writes a line of a syslog priority to the journal.
        clock: A monotonic clock, in seconds.
        to_daemon: Packets to send to libvirt, in order. The sender empties it.
        to_client: Packets to send to the client, in order. The sender empties it.
        opened: Whether libvirt has let the client in.
        unwanted_fds: File descriptors that go to nobody. The owner of the sockets closes them.
    """

    client: str
    start_worker: StartWorker
    locks: AttachLocks
    log: Callable[[int, str], None]
    clock: Callable[[], float] = time.monotonic
    to_daemon: deque[PacketWithFds] = field(default_factory=deque)
    to_client: deque[PacketWithFds] = field(default_factory=deque)
    opened: bool = False
    unwanted_fds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._calls: list[PendingCall] = []
        self._held_bytes = 0
        self._serial = FIRST_SERIAL - 1
        self._questions: dict[_Key, PendingCall | None] = {}
        self._client_calls: set[_Key] = set()
        self._delayed: list[PacketWithFds] = []
        self._replaced: dict[_Key, _Replaced] = {}
        self._forwarded: dict[_Key, list[AttachLock | None]] = {}
        self._gone_since: float | None = None

    @property
    def busy(self) -> bool:
        """Whether expire(), retry() or finished depend on the time now."""
        return bool(self._calls) or self._gone_since is not None

    @property
    def quiet(self) -> bool:
        """Whether nothing is sent to libvirt until the client sends its next packet."""
        return not (self._calls or self._replaced or self._delayed)

    @property
    def waits(self) -> bool:
        """Whether a call waits for a worker or a lock, so that retry() has to be called again soon."""
        return any(call.worker is None or call.lock_of is not None for call in self._calls)

    @property
    def finished(self) -> bool:
        """Whether the connection may end after the client has gone: libvirt carries out what the client sent."""
        if self._gone_since is None:
            return False
        half_done = any(replaced.then for replaced in self._replaced.values())
        expired = self.clock() - self._gone_since > 2 * HELD_CALL_TIMEOUT and not half_done
        return expired or (self.quiet and not self._forwarded)

    # What the two sides and the workers send

    def from_client(self, item: PacketWithFds) -> None:
        """Take a packet that the client sent."""
        packet = item.packet
        if not self.opened:
            self.to_daemon.append(item)
            return
        if packet.serial >= FIRST_SERIAL and packet.program == protocol.PROGRAM and packet.type in CALL_TYPES:
            key = (packet.procedure, packet.serial)
            if key in self._questions or key in self._replaced:
                # The reply could not be told from that to the gateway's own call, which comes first.
                if len(self._delayed) >= MAX_DELAYED_CALLS:
                    raise protocol.RemoteProtocolError("too many calls with serials of the gateway's own")
                self._delayed.append(item)
                return
            self._client_calls.add(key)
        if is_rewritten(packet):
            self._hold(item)
        else:
            self.to_daemon.append(item)

    def from_daemon(self, item: PacketWithFds) -> None:
        """Take a packet that libvirt sent."""
        packet = item.packet
        if packet.program != protocol.PROGRAM or packet.type not in protocol.REPLY_TYPES:
            self.to_client.append(item)
            return
        key = (packet.procedure, packet.serial)
        if key in self._questions:
            call = self._questions.pop(key)
            self.unwanted_fds += item.fds
            if call is not None and call.worker is not None:
                call.worker.send(packet)
            self._retry_delayed(key)
            return
        if key in self._replaced:
            self._replied_instead(self._replaced.pop(key), item)
            self._retry_delayed(key)
            return
        if packet.procedure == Procedure.CONNECT_OPEN and packet.status == Status.OK:
            self.opened = True
        self._client_calls.discard(key)
        if key in self._forwarded:
            self._replied(key)
        self.to_client.append(item)

    def from_worker(self, call: PendingCall, packet: Packet) -> None:
        """Take a packet that the worker of a call sent: a question to libvirt, or a message to the session."""
        if call.worker is None:
            return
        try:
            if packet.program == protocol.PROGRAM:
                self._questions[self._call(packet.procedure, packet.payload)] = call
            elif packet.program == WORKER_PROGRAM:
                self._take_message(call, packet)
        except ProtocolError as error:
            self._give_up(call, str(error))

    def worker_ended(self, call: PendingCall) -> None:
        """Note that the worker of a call has ended without an answer."""
        if call in self._calls:
            self._give_up(call, "its worker process was killed, probably by a limit of time or memory")

    def client_gone(self) -> None:
        """Note that the client has closed its connection."""
        if self._gone_since is None:
            self._gone_since = self.clock()

    # What time brings

    def retry(self) -> None:
        """Start workers and acquire locks for the calls that wait."""
        for call in list(self._calls):
            if call.lock_of is not None:
                self._acquire(call)
        self._start_workers()

    def expire(self) -> None:
        """Forward the calls whose time is over."""
        for call in [call for call in self._calls if self.clock() >= call.deadline]:
            self._give_up(call, f"it was not laid out within {HELD_CALL_TIMEOUT:g} s")

    def give_up_all(self, why: str) -> None:
        """Forward all held calls unmodified and release all locks: the client must not keep others waiting."""
        for call in list(self._calls):
            self._give_up(call, why)
        for locks in self._forwarded.values():
            _release(locks)

    def close(self) -> None:
        """End all workers and release all locks, because the connection ends."""
        for call in self._calls:
            _release([call.lock])
            if call.worker is not None:
                call.worker.stop()
            self.unwanted_fds += (call.instead_of or call.item).fds
        for item in [*self._delayed, *(replaced.item for replaced in self._replaced.values())]:
            self.unwanted_fds += item.fds
        for locks in self._forwarded.values():
            _release(locks)
        self._calls.clear()
        self._forwarded.clear()

    # The life of a held call

    def _hold(self, item: PacketWithFds, instead_of: PacketWithFds | None = None) -> None:
        call = PendingCall(item, self.clock() + HELD_CALL_TIMEOUT, instead_of=instead_of)
        self._calls.append(call)
        self._held_bytes += len(item.packet.data)
        if self._held_bytes > MAX_HELD_BYTES:
            self._give_up(call, "the client has too many calls under way")
        else:
            self._start_workers()

    def _start_workers(self) -> None:
        while True:
            waiting = [call for call in self._calls if call.worker is None]
            if not waiting or len(self._calls) - len(waiting) >= MAX_PENDING_CALLS:
                return
            call = waiting[0]
            try:
                call.worker = self.start_worker(call)
            except OSError as error:
                self._give_up(call, f"no worker process: {error.strerror}")
                continue
            if call.worker is None:
                return
            call.worker.send(call.item.packet)

    def _take_message(self, call: PendingCall, packet: Packet) -> None:
        text = packet.payload
        if packet.procedure == Message.LOG:
            self.log(max(packet.status, ERROR), text.decode("utf-8", "replace"))
        elif packet.procedure == Message.LOCK:
            call.lock_of = Reader(text).raw(protocol.UUID_BYTES)
            self._acquire(call)
        elif packet.procedure == Message.DONE:
            self._forward(call, text)
        elif packet.procedure == Message.DONE_IN_TWO:
            reader = Reader(text)
            self._replace(call, *((reader.uint(), reader.string()) for _ in range(2)))
        elif packet.procedure == Message.REFUSED:
            self._refuse(call, text.decode("utf-8", "replace"))
        elif packet.procedure == Message.FAILED:
            self._give_up(call, text.decode("utf-8", "replace"))

    def _call(self, procedure: int, payload: bytes) -> _Key:
        """Send a call of the gateway's own to libvirt, with a serial that no call in flight has."""
        while True:
            self._serial = self._serial + 1 if self._serial < MAX_SERIAL else FIRST_SERIAL
            key = (procedure, self._serial)
            if key not in self._questions and key not in self._replaced and key not in self._client_calls:
                break
        packet = protocol.build_packet(procedure, Type.CALL, self._serial, Status.OK, payload)
        self.to_daemon.append(PacketWithFds(packet))
        return key

    def _acquire(self, call: PendingCall) -> None:
        if call.lock_of is not None and call.worker is not None:
            call.lock = self.locks.acquire(call.lock_of)
            if call.lock is not None:
                call.lock_of = None
                call.worker.send(build_message(Message.LOCK))

    def _forward(self, call: PendingCall, payload: bytes) -> None:
        """Forward a rewritten call, or its own bytes if nothing changed."""
        item = call.item
        if payload != item.packet.payload:
            item = PacketWithFds(item.packet.with_payload(payload), item.fds)
        self._finish(call)
        self._send_call(call, item, call.lock)

    def _replace(self, call: PendingCall, first: tuple[int, bytes], then: tuple[int, bytes]) -> None:
        """Send two other calls in place of the client's, whose last reply the client gets as that to its own."""
        item = call.instead_of or call.item
        packet = protocol.build_packet(then[0], Type.CALL, item.packet.serial, Status.OK, then[1])
        self._replaced[self._call(*first)] = _Replaced(item, packet)
        self._finish(call)
        self._client_calls.discard((item.packet.procedure, item.packet.serial))
        self._start_workers()

    def _replied_instead(self, replaced: _Replaced, reply: PacketWithFds) -> None:
        """Go on after libvirt's reply to a call that was sent in place of the client's."""
        self.unwanted_fds += reply.fds
        if replaced.then is not None and reply.packet.status == Status.OK:
            self._hold(PacketWithFds(replaced.then), replaced.item)
            return
        self.unwanted_fds += replaced.item.fds
        self.to_client.append(PacketWithFds(protocol.build_reply(replaced.item.packet, reply.packet)))

    def _give_up(self, call: PendingCall, why: str) -> None:
        """Forward a call unmodified, and say why in the journal."""
        if call not in self._calls:
            return
        self._finish(call)
        _release([call.lock])
        self.log(WARNING, f"{self.client}: {describe_call(call.item.packet)}: forwarded unmodified: {why}")
        self._send_call(call, call.item, None)

    def _refuse(self, call: PendingCall, why: str) -> None:
        """Answer a call with an error instead of forwarding it."""
        why = one_line(why)
        self._finish(call)
        _release([call.lock])
        item = call.instead_of or call.item
        packet = item.packet
        self.log(WARNING, f"{self.client}: {why}")
        self._client_calls.discard((packet.procedure, packet.serial))
        self.unwanted_fds += item.fds
        self.to_client.append(PacketWithFds(protocol.error_reply(packet, f"papr-hook: {why}")))

    def _finish(self, call: PendingCall) -> None:
        self._calls.remove(call)
        self._held_bytes -= len(call.item.packet.data)
        if call.worker is not None:
            call.worker.stop()
        call.worker = None
        for key, asking in self._questions.items():
            if asking is call:
                self._questions[key] = None  # its reply comes yet, and is not the client's

    def _send_call(self, call: PendingCall, item: PacketWithFds, lock: AttachLock | None) -> None:
        packet = item.packet
        if call.instead_of is None:
            self._forwarded.setdefault((packet.procedure, packet.serial), []).append(lock)
            self.to_daemon.append(item)
        else:
            self._replaced[self._call(packet.procedure, packet.payload)] = _Replaced(call.instead_of)
        self._start_workers()

    def _replied(self, key: _Key) -> None:
        """Release the lock of the call that was replied to. Two calls with one serial are replied to in order."""
        _release([self._forwarded[key].pop(0)])
        if not self._forwarded[key]:
            del self._forwarded[key]

    def _retry_delayed(self, key: _Key) -> None:
        delayed, self._delayed = self._delayed, []
        for item in delayed:
            if (item.packet.procedure, item.packet.serial) == key:
                self.from_client(item)
            else:
                self._delayed.append(item)


def _release(locks: list[AttachLock | None]) -> None:
    for lock in locks:
        if lock is not None:
            lock.release()
