"""The process that rewrites a call: what it answers, and that the kernel ends it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from papr_hook.config import Config
from papr_hook.errors import ConfError
from papr_hook.gateway import limits
from papr_hook.gateway.limits import WorkerLimits
from papr_hook.gateway.protocol import Packet, PacketParser, Procedure, Reader, Type, build_packet, string, uint
from papr_hook.gateway.worker import CallRewriter, RelayChannel, RelayGoneError, rewrite_calls
from papr_hook.gateway.worker_protocol import STAYS, WORKER_PROGRAM, Message
from tests.helpers.domain_xml import at, domain_xml, nic

CROWDED = domain_xml(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1, running=False)


def define(xml: bytes) -> Packet:
    """Return a client's call."""
    return build_packet(Procedure.DOMAIN_DEFINE_XML_FLAGS, Type.CALL, 5, 0, string(xml) + uint(7))


def test_an_answer_after_lines_for_the_journal() -> None:
    """A domain XML is laid out with one question for the guest's previous one."""
    rewriter = CallRewriter(Config)
    out = rewriter.receive(define(CROWDED))
    assert rewriter.done
    assert {packet.program for packet in out} == {WORKER_PROGRAM}
    assert [Message(packet.procedure) for packet in out][-1] == Message.DONE
    reader = Reader(out[-1].payload)
    assert reader.string().count(b"pci-root") > 4
    assert reader.uint() == 7


@pytest.mark.parametrize(
    ("load_config", "text"),
    [
        (Config, "syntax error|not well-formed|line 1"),
        (lambda: (_ for _ in ()).throw(ConfError("x: bad")), "x: bad"),
        (lambda: (_ for _ in ()).throw(MemoryError), "too much memory"),
        (lambda: (_ for _ in ()).throw(KeyError("oops")), "unexpected KeyError"),
    ],
)
def test_whatever_goes_wrong_is_an_answer(load_config: Callable[[], Config], text: str) -> None:
    """The relay then forwards the call unmodified."""
    rewriter = CallRewriter(load_config)
    (answer,) = rewriter.receive(define(b"no XML"))
    assert rewriter.done
    assert answer.procedure == Message.FAILED
    assert any(part in answer.payload.decode() for part in text.split("|"))


class Calls:
    """Limits of a number of calls, and nothing else."""

    def __init__(self, number: int) -> None:
        self._left = number

    def begin_call(self) -> None:
        self._left -= 1

    def allow_another(self) -> bool:
        return self._left > 0


def test_calls_over_a_socket() -> None:
    """The worker takes as many as its limits allow, says which was the last, and notices that the relay has gone."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        call = define(b"<domain type='qemu'/>")
        ours.sendall(call.data * 2)
        rewrite_calls(RelayChannel(theirs), Config, Calls(2))
        parser = PacketParser()
        parser.receive(ours.recv(65536))
        for status in (STAYS, 0):
            answer = parser.next_packet()
            assert answer is not None
            assert (answer.procedure, answer.payload, answer.status) == (Message.DONE, call.payload, status)
        ours.close()
        with pytest.raises(RelayGoneError):
            rewrite_calls(RelayChannel(theirs), Config, Calls(2))


def test_no_call_after_a_fault() -> None:
    """A process in which something went wrong ends, whatever its limits allow."""
    rewriter = CallRewriter(Config, lambda: True)
    (answer,) = rewriter.receive(define(b"no XML"))
    assert (answer.procedure, answer.status) == (Message.FAILED, 0)
    assert not rewriter.stays


@contextmanager
def limited(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch, wall: int = 60) -> Iterator[int]:
    """Run something in a process with a worker's limits, other than those of time; give its wait status."""
    monkeypatch.setattr(limits, "CPU_SECONDS", 1)
    monkeypatch.setattr(limits, "WALL_SECONDS", wall)
    child = os.fork()
    if child == 0:
        try:
            WorkerLimits()
            run()
        finally:
            os._exit(0)
    yield os.waitpid(child, 0)[1]


def spin() -> None:
    """Use CPU time for ever, deaf to every signal that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


@pytest.mark.parametrize(
    ("run", "wall", "signals"),
    [(spin, 60, {signal.SIGXCPU, signal.SIGKILL}), (lambda: time.sleep(60), 1, {signal.SIGALRM})],
)
def test_limits_of_time(run: Callable[[], None], wall: int, signals: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends a worker that uses too much CPU time, and one that sleeps."""
    with limited(run, monkeypatch, wall) as status:
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) in signals


def test_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker cannot allocate more than its limit."""

    def allocate() -> None:
        try:
            bytearray(limits.MEMORY_BYTES)
        except MemoryError:
            os._exit(42)

    with limited(allocate, monkeypatch) as status:
        assert os.WEXITSTATUS(status) == 42


def spend(seconds: float) -> None:
    """Use CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_each_call_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call that needs as much CPU time as the first is not ended for what the first used."""

    def run() -> None:
        worker_limits = WorkerLimits()
        spend(0.6)
        worker_limits.begin_call()
        spend(0.6)
        os._exit(42)

    with limited(run, monkeypatch) as status:
        assert os.WEXITSTATUS(status) == 42


@pytest.mark.parametrize(
    ("name", "value"), [("STAY_SECONDS", 0), ("STAY_BYTES", 1 << 20), ("CPU_SECONDS", 1), ("", None)]
)
def test_when_a_worker_retires(name: str, value: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no other call when it is old, has grown, or has used most of its CPU time."""
    child = os.fork()
    if child == 0:
        limits.STAY_BYTES = 1 << 40  # it has the size of this process, unlike the gateway's
        if value is not None:
            setattr(limits, name, value)
        os._exit(42 if WorkerLimits().allow_another() else 43)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == (42 if value is None else 43)
