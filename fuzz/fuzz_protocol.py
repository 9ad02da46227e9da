"""Fuzz the framing and a connection: a client, a libvirt and workers that send anything, in any portions.

A run's input is a script. Each step has one byte that says who acts, and the bytes that it sends. What is checked is
what a client and libvirt may rely on: see check().
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Sequence

from papr_hook.gateway import protocol
from papr_hook.gateway.calls import REWRITTEN
from papr_hook.gateway.passage import measure_from_client, measure_from_daemon
from papr_hook.gateway.protocol import Packet, PacketParser, PacketWithFds, ProtocolError, Type
from papr_hook.gateway.session import FIRST_SERIAL, PendingCall, Session
from papr_hook.gateway.worker_protocol import WORKER_PROGRAM, Message, build_message
from papr_hook.virt.locks import AttachLocks

PROCEDURES = (1, 14, 66, *sorted(REWRITTEN))
PAYLOADS = (b"", protocol.string(b"g") + bytes(16) + protocol.uint(1), protocol.string(b"<domain/>"), bytes(40))


class Script:
    """Takes decisions from the input, and zeros after its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether the input has more."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def take(self, size: int) -> bytes:
        """Return some bytes."""
        part = self._data[self._at : self._at + size]
        self._at += size
        return part + bytes(size - len(part))


class Worker:
    """A worker that says what the script has it say."""

    def __init__(self) -> None:
        self.stopped = False
        self.got: list[Packet] = []

    def send(self, packet: Packet) -> None:
        """Note a packet."""
        assert not self.stopped, "a packet for a worker that was stopped"
        self.got.append(packet)

    def stop(self) -> None:
        """Note the end."""
        self.stopped = True


class Run:
    """One connection, and what went over it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.now = 0.0
        self.workers: dict[PendingCall, Worker] = {}
        self.parsers = {"client": PacketParser(), "daemon": PacketParser()}
        self.late = {"client": b"", "daemon": b""}
        self.rest = {"client": 0, "daemon": 0}
        self.from_client: list[Packet] = []
        self.from_daemon: list[Packet] = []
        self.to_daemon: list[Packet] = []
        self.to_client: list[Packet] = []
        self.twos = 0
        self.locks = AttachLocks(os.memfd_create("fuzz"), lambda: self.now)
        self.session = Session("fuzz", self._start, self.locks, lambda _, text: None, lambda: self.now)

    def _start(self, call: PendingCall) -> Worker | None:
        choice = self.script.byte()
        if choice == 0xFF:
            raise OSError(11, "no process")
        if choice == 0xFE:
            return None
        self.workers[call] = Worker()
        return self.workers[call]

    def step(self) -> None:
        """Have somebody act."""
        choice = self.script.byte() % 8
        if choice <= 1:
            self._packet("client" if choice == 0 else "daemon")
        elif choice == 2:
            self._raw("client" if self.script.byte() % 2 else "daemon")
        elif choice == 3:
            self._worker()
        elif choice == 4:
            self.now += self.script.byte() / 8
            self.session.expire()
            self.session.retry()
        elif choice == 5:
            self._answer()
        elif choice == 6 and self.script.byte() == 0xFF:
            self.session.client_gone()
        elif choice == 7 and self.script.byte() == 0xFF:
            self.session.give_up_all("fuzz")
        self._drain()

    def _packet(self, side: str) -> None:
        procedure = PROCEDURES[self.script.byte() % len(PROCEDURES)]
        type_ = self.script.byte() % 8 if side == "client" else (1, 1, 1, 2, 3, 5)[self.script.byte() % 6]
        serial = self.script.byte() % 8 + (FIRST_SERIAL if self.script.byte() % 4 == 0 else 0)
        payload = PAYLOADS[self.script.byte() % len(PAYLOADS)]
        if type_ in (Type.CALL_WITH_FDS, Type.REPLY_WITH_FDS):
            payload = protocol.uint(0) + payload
        status = int(self.script.byte() > 0xF0)
        self._feed(side, protocol.build_packet(procedure, type_, serial, status, payload).data)

    def _raw(self, side: str) -> None:
        self._feed(side, self.script.take(self.script.byte() % 64))

    def _feed(self, side: str, data: bytes) -> None:
        """Have bytes arrive, but for some at their end, which arrive with the next ones."""
        data = self.late[side] + data
        arrived = len(data) - self.script.byte() % (len(data) + 1)
        self.late[side] = data[arrived:]
        data = data[:arrived]
        while data:
            size = self.rest[side] or len(data)
            self._receive(side, data[:size])
            data = data[size:]

    def _receive(self, side: str, data: bytes) -> None:
        parser = self.parsers[side]
        seen, take, out = (
            (self.from_client, self.session.from_client, self.to_daemon)
            if side == "client"
            else (self.from_daemon, self.session.from_daemon, self.to_client)
        )
        if parser.is_empty:
            self.rest[side] = self._measure(side, data)
        passed = min(self.rest[side], len(data))
        self.rest[side] -= passed
        parser.receive(data[:passed])
        while (packet := parser.next_packet()) is not None:
            seen.append(packet)
            out.append(packet)
        parser.receive(data[passed:])
        while (packet := parser.next_packet()) is not None:
            seen.append(packet)
            take(PacketWithFds(packet))
            self._drain()

    def _measure(self, side: str, data: bytes) -> int:
        """Return how many bytes a connection would pass on unseen, as soon as they arrive."""
        if side == "client":
            whole = not (self.session.opened and self.session.quiet)
            return measure_from_client(memoryview(data), len(data), protocol.MAX_PACKET, self.session.opened, whole)
        return measure_from_daemon(memoryview(data), len(data))

    def _answer(self) -> None:
        """Have libvirt reply to the call that it got some calls ago."""
        if self.to_daemon:
            call = self.to_daemon[-1 - self.script.byte() % len(self.to_daemon)]
            reply = protocol.build_packet(call.procedure, Type.REPLY, call.serial, 0, PAYLOADS[1])
            self.from_daemon.append(reply)
            self.session.from_daemon(PacketWithFds(reply))

    def _worker(self) -> None:
        if not self.workers:
            return
        calls = list(self.workers)
        call = calls[self.script.byte() % len(calls)]
        choice = self.script.byte() % 9
        payload = PAYLOADS[self.script.byte() % len(PAYLOADS)]
        if choice == 0:
            self.session.worker_ended(call)
        elif choice <= 2:
            self.session.from_worker(call, protocol.build_packet(14, Type.CALL, 0, 0, payload))
        elif choice == 3:
            self.session.from_worker(call, build_message(Message.LOCK, self.script.take(self.script.byte() % 20)))
        else:
            message = list(Message)[self.script.byte() % len(Message)]
            if message == Message.DONE_IN_TWO and len(payload) > 4:
                payload = self._make_two()
            self.session.from_worker(call, build_message(message, payload, self.script.byte()))

    def _make_two(self) -> bytes:
        """Return the payload of a DONE_IN_TWO, unlike any other."""
        self.twos += 1
        revert, start = (protocol.string(f"{what} {self.twos}".encode()) for what in ("revert", "start"))
        return protocol.uint(192) + protocol.string(revert) + protocol.uint(196) + protocol.string(start)

    def _drain(self) -> None:
        assert not (self.rest["client"] and self.session.to_daemon), "libvirt has to wait for the rest of a packet"
        self._empty(self.session.to_daemon, self.to_daemon)
        if not self.rest["daemon"]:
            self._empty(self.session.to_client, self.to_client)

    @staticmethod
    def _empty(queue: deque[PacketWithFds], seen: list[Packet]) -> None:
        while queue:
            seen.append(queue.popleft().packet)


def fuzz_one(data: bytes) -> None:
    """Run one input, and check what came of it. Raises AssertionError, or whatever went wrong."""
    run = Run(Script(data))
    try:
        for _ in range(400):
            if not run.script.left:
                break
            run.step()
    except ProtocolError:
        return  # a connection ends so, and the other side sees no more of it
    finally:
        run.session.close()
        os.close(run.locks._fd)
    check(run)


def check(run: Run) -> None:
    """Check that nothing was lost, reordered, invented or taken for something else."""
    passed = [packet for packet in run.from_client if packet.procedure not in REWRITTEN and not _may_wait(packet)]
    assert _in_order(passed, run.to_daemon), "a client's packet was lost or overtaken"
    own = Counter(packet.data for packet in run.to_daemon if packet.serial >= FIRST_SERIAL)
    assert all(packet.program != WORKER_PROGRAM or packet in run.from_client for packet in run.to_daemon)
    others = [packet for packet in run.from_daemon if packet.type not in (Type.REPLY, Type.REPLY_WITH_FDS)]
    assert _in_order(others, run.to_client), "an event or a stream was lost or overtaken"
    assert sum(own.values()) <= len(run.from_client) + 400
    known = {(packet.procedure, packet.serial) for packet in run.from_client}
    for packet in run.to_client:
        if packet.type == Type.REPLY and packet not in run.from_daemon:
            assert (packet.procedure, packet.serial) in known, "a reply to a call that the client did not make"
    twos = [packet.payload for packet in run.to_daemon if packet.procedure in (192, 196) and b" " in packet.payload]
    assert len(twos) == len(set(twos)), "a revert or a start that was sent twice"
    for start in (payload for payload in twos if b"start" in payload):
        revert = protocol.string(protocol.Reader(start).string().replace(b"start", b"revert"))
        assert twos.index(revert) < twos.index(start), "a start before its revert"
    if not run.session.opened:
        assert [packet.data for packet in run.to_daemon] == [packet.data for packet in run.from_client]


def _may_wait(packet: Packet) -> bool:
    """Return whether a call may wait because its serial is that of a call of the gateway's own."""
    return packet.serial >= FIRST_SERIAL


def _in_order(packets: Sequence[Packet], stream: Sequence[Packet]) -> bool:
    """Return whether all packets are in a stream, in their order."""
    rest = iter(stream)
    return all(any(packet == other for other in rest) for packet in packets)


if __name__ == "__main__":
    from fuzz.driver import main

    main("protocol", fuzz_one)
