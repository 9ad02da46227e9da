"""A client and a libvirt that talk through a session, without a socket or a process."""

from __future__ import annotations

import os
from collections import deque

from papr_hook.config import Config
from papr_hook.gateway import protocol
from papr_hook.gateway.protocol import PacketWithFds
from papr_hook.gateway.session import PendingCall, Session
from papr_hook.gateway.worker import CallRewriter
from papr_hook.virt.locks import AttachLocks

UUID = bytes(range(16))
DOM = protocol.string(b"g") + UUID + protocol.uint(1)


class Guests:
    """The attach locks of one host, for several sessions, which are processes of their own on a real one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.locks = AttachLocks(os.memfd_create("attach.lock"), lambda: self.now)

    @property
    def locked(self) -> bool:
        """Return whether a session has the lock of the guest."""
        lock = self.locks.acquire(UUID)
        if lock is not None:
            lock.release()
        return lock is None


class InlineWorker:
    """A worker in this process, which answers at once."""

    def __init__(self, session: Session, call: PendingCall) -> None:
        self._session = session
        self._call = call
        self._rewriter = CallRewriter(Config)
        self.stopped = False

    def send(self, packet: protocol.Packet) -> None:
        """Have it take a packet, and the session what it says to that."""
        for answer in self._rewriter.receive(packet):
            self._session.from_worker(self._call, answer)

    def stop(self) -> None:
        """Note that the session needs it no more."""
        self.stopped = True


class MuteWorker(InlineWorker):
    """A worker that never says anything."""

    def send(self, packet: protocol.Packet) -> None:
        """Swallow a packet."""


class Talk:
    """A session that libvirt has let the client into.

    Attributes:
        workers: Those that were started.
        worker_class: What is started next, or None if there is nothing to start.
        journal: What was logged.
    """

    def __init__(self, guests: Guests, opened: bool = True) -> None:
        self.guests = guests
        self.journal: list[str] = []
        self.workers: list[InlineWorker] = []
        self.worker_class: type[InlineWorker] | None = InlineWorker
        self.session = Session("the client", self._start, guests.locks, self._log, lambda: guests.now, opened=opened)

    def _start(self, call: PendingCall) -> InlineWorker | None:
        if self.worker_class is None:
            return None
        self.workers.append(self.worker_class(self.session, call))
        return self.workers[-1]

    def _log(self, priority: int, text: str) -> None:
        self.journal.append(text)

    def attach(self, device: str, serial: int = 5, flags: int = 1) -> protocol.Packet:
        """Have a client attach a device that may read the guest."""
        call = self.call(device, serial, flags)
        question = self.session.to_daemon.pop().packet
        self.answer(question, protocol.uint(1))
        return call

    def call(self, device: str, serial: int = 5, flags: int = 1) -> protocol.Packet:
        """Have the client call for an attach."""
        payload = DOM + protocol.string(device.encode()) + protocol.uint(flags)
        return self.send(protocol.build_packet(160, protocol.Type.CALL, serial, 0, payload))

    def send(self, packet: protocol.Packet) -> protocol.Packet:
        """Have the client send a packet."""
        self.session.from_client(PacketWithFds(packet))
        return packet

    def sent(self) -> list[protocol.Packet]:
        """Return what was sent to libvirt since the last look."""
        return drain(self.session.to_daemon)

    def got(self) -> list[protocol.Packet]:
        """Return what the client got since the last look."""
        return drain(self.session.to_client)

    def answer(self, call: protocol.Packet, payload: bytes = b"", status: int = 0) -> protocol.Packet:
        """Have libvirt answer a call."""
        reply = protocol.build_packet(call.procedure, protocol.Type.REPLY, call.serial, status, payload)
        self.session.from_daemon(PacketWithFds(reply))
        return reply


def drain(queue: deque[PacketWithFds]) -> list[protocol.Packet]:
    """Return the packets of a queue, which is empty then."""
    packets = [item.packet for item in queue]
    queue.clear()
    return packets


def device_of(call: protocol.Packet) -> bytes:
    """Return the device that a call attaches."""
    reader = protocol.Reader(call.payload)
    reader.domain()
    return reader.string()
