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
from papr_hook.gateway import worker
from papr_hook.gateway.protocol import Packet, PacketParser, Procedure, Reader, Type, build_packet, string, uint
from papr_hook.gateway.worker import CallRewriter, RelayChannel, RelayGoneError, rewrite_call, set_limits
from papr_hook.gateway.worker_protocol import WORKER_PROGRAM, Message
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


def test_a_call_over_a_socket() -> None:
    """The worker reads packets in any portions, and notices that the relay has gone."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        data = define(b"<domain type='qemu'/>").data
        ours.sendall(data)
        rewrite_call(RelayChannel(theirs), Config)
        parser = PacketParser()
        parser.receive(ours.recv(65536))
        answer = parser.next_packet()
        assert answer is not None
        assert (answer.procedure, answer.payload) == (Message.DONE, define(b"<domain type='qemu'/>").payload)
        ours.close()
        with pytest.raises(RelayGoneError):
            RelayChannel(theirs).receive()


@contextmanager
def limited(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch, wall: int = 60) -> Iterator[int]:
    """Run something in a process with a worker's limits, other than those of time; give its wait status."""
    monkeypatch.setattr(worker, "CPU_SECONDS", 1)
    monkeypatch.setattr(worker, "WALL_SECONDS", wall)
    child = os.fork()
    if child == 0:
        try:
            set_limits()
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
            bytearray(worker.MEMORY_BYTES)
        except MemoryError:
            os._exit(42)

    with limited(allocate, monkeypatch) as status:
        assert os.WEXITSTATUS(status) == 42
