"""A call in whose place two others are sent, one after the other: a revert that starts the guest cold."""

from __future__ import annotations

import pytest

from papr_hook import pipeline
from papr_hook.config import Config
from papr_hook.gateway import protocol
from papr_hook.gateway.protocol import Packet, Procedure, Status, Type
from papr_hook.gateway.session import FIRST_SERIAL, HELD_CALL_TIMEOUT
from papr_hook.gateway.worker_protocol import Message, build_message
from papr_hook.layout.check import complies
from tests.helpers.domain_xml import at, domain_xml, nic
from tests.helpers.talk import DOM, Guests, InlineWorker, MuteWorker, Talk

REVERT, START, DEFINE = (
    Procedure.DOMAIN_REVERT_TO_SNAPSHOT,
    Procedure.DOMAIN_CREATE_WITH_FLAGS,
    Procedure.DOMAIN_DEFINE_XML_FLAGS,
)
SNAPSHOT = protocol.string(b"before") + DOM
RUNNING = 1
CROWDED = domain_xml(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1, running=False)
SNAPSHOT_XML = f"<domainsnapshot><state>shutoff</state>{CROWDED.decode()}</domainsnapshot>".encode()
ANSWERS = {
    Procedure.DOMAIN_SNAPSHOT_GET_XML_DESC: protocol.string(SNAPSHOT_XML),
    Procedure.DOMAIN_IS_PERSISTENT: protocol.uint(1),
    Procedure.DOMAIN_IS_ACTIVE: protocol.uint(0),
    Procedure.DOMAIN_HAS_MANAGED_SAVE_IMAGE: protocol.uint(0),
    Procedure.DOMAIN_GET_XML_DESC: protocol.string(CROWDED),
    DEFINE: DOM,
}


@pytest.fixture
def guests() -> Guests:
    """Make the locks and the clock of a host."""
    return Guests()


@pytest.fixture
def talk(guests: Guests) -> Talk:
    """Have a client revert a guest to a snapshot without memory, and libvirt answer up to that revert."""
    one = Talk(guests)
    one.send(protocol.build_packet(REVERT, Type.CALL, 5, 0, SNAPSHOT + protocol.uint(RUNNING)))
    return one


def answer_until(talk: Talk, procedure: Procedure) -> Packet:
    """Have libvirt answer the gateway's questions until it gets a call of a procedure, and return that."""
    while (call := talk.session.to_daemon.popleft().packet).procedure != procedure:
        if call.procedure == DEFINE:
            data = protocol.Reader(call.payload).string()
            assert complies(pipeline.analyze(data, Config()).violations())
        talk.answer(call, ANSWERS[Procedure(call.procedure)])
    return call


def replies(talk: Talk) -> list[tuple[int, int, int, bytes]]:
    """Return what the client got."""
    return [(reply.procedure, reply.serial, reply.status, reply.payload) for reply in talk.got()]


def test_both_calls(talk: Talk) -> None:
    """The guest is reverted, laid out and started, and the client gets one reply, without the start's payload."""
    revert = answer_until(talk, REVERT)
    assert revert.payload == SNAPSHOT + protocol.uint(0)
    assert revert.serial >= FIRST_SERIAL
    assert talk.sent() == []
    talk.answer(revert)
    start = answer_until(talk, START)
    assert start.payload == DOM + protocol.uint(0)
    talk.session.client_gone()
    assert not talk.session.finished
    talk.answer(start, DOM)
    assert replies(talk) == [(REVERT, 5, 0, b"")]
    assert talk.session.finished


def test_a_revert_takes_its_time(talk: Talk, guests: Guests) -> None:
    """It is sent once, however long libvirt needs, and the guest is laid out and started then."""
    revert = answer_until(talk, REVERT)
    guests.now = 100 * HELD_CALL_TIMEOUT
    talk.session.expire()
    talk.session.retry()
    assert talk.sent() == []
    talk.answer(revert)
    talk.answer(answer_until(talk, START), DOM)
    assert talk.sent() == []
    assert replies(talk) == [(REVERT, 5, 0, b"")]


def test_a_client_that_goes_away(talk: Talk, guests: Guests) -> None:
    """What has begun is ended."""
    revert = answer_until(talk, REVERT)
    talk.session.client_gone()
    guests.now = 100 * HELD_CALL_TIMEOUT
    assert not talk.session.finished
    talk.answer(revert)
    talk.answer(answer_until(talk, START), DOM)
    assert talk.session.finished


def test_a_revert_that_fails(talk: Talk) -> None:
    """The client gets libvirt's error, and nothing is reverted or started again."""
    revert = answer_until(talk, REVERT)
    reply = talk.answer(revert, protocol.error_reply(revert, "no such snapshot").payload, Status.ERROR)
    assert replies(talk) == [(REVERT, 5, 1, reply.payload)]
    assert talk.sent() == []


def test_two_calls_for_the_second(talk: Talk) -> None:
    """Whatever a worker answers, the reply is one to the client's own call."""
    revert = answer_until(talk, REVERT)
    talk.worker_class = MuteWorker
    talk.answer(revert)
    calls = protocol.uint(REVERT) + protocol.string(b"again") + protocol.uint(START) + protocol.string(b"start")
    talk.session.from_worker(talk.workers[-1]._call, build_message(Message.DONE_IN_TWO, calls))
    (second,) = talk.sent()
    assert second.payload == b"again"
    talk.answer(second, protocol.error_reply(second, "no").payload, Status.ERROR)
    assert [reply[:3] for reply in replies(talk)] == [(REVERT, 5, 1)]


@pytest.mark.parametrize("fails", ["in time", "to live", "to define"])
def test_a_layout_that_fails_after_the_revert(talk: Talk, guests: Guests, fails: str) -> None:
    """The guest is started as it is; the revert is not repeated."""
    revert = answer_until(talk, REVERT)
    talk.worker_class = InlineWorker if fails == "to define" else MuteWorker
    talk.answer(revert)
    if fails == "in time":
        guests.now = HELD_CALL_TIMEOUT
        talk.session.expire()
    elif fails == "to live":
        talk.session.worker_ended(talk.workers[-1]._call)
    else:
        define = answer_until(talk, DEFINE)
        talk.answer(define, protocol.error_reply(define, "access denied").payload, Status.ERROR)
    (start,) = talk.sent()
    assert (start.procedure, start.payload) == (START, DOM + protocol.uint(0))
    assert start.serial >= FIRST_SERIAL
    talk.answer(start, protocol.error_reply(start, "cannot be started").payload, Status.ERROR)
    ((procedure, serial, status, payload),) = replies(talk)
    assert (procedure, serial, status) == (REVERT, 5, 1)
    assert b"cannot be started" in payload
    assert "a start of guest 'g': forwarded unmodified" in talk.journal[-1]
