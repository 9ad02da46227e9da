"""One connection: what becomes of a client's packets, seen from the client and from libvirt."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papr_hook.gateway import protocol
from papr_hook.gateway.calls import REWRITTEN
from papr_hook.gateway.protocol import PacketWithFds, Procedure, Status, Type
from papr_hook.gateway.session import (
    FIRST_SERIAL,
    HELD_CALL_TIMEOUT,
    MAX_HELD_BYTES,
    MAX_PENDING_CALLS,
    PendingCall,
)
from papr_hook.gateway.worker_protocol import Message, build_message
from papr_hook.virt.locks import ATTACH_LOCK_TIMEOUT
from tests.helpers.domain_xml import at, domain_xml, nic
from tests.helpers.talk import DOM, UUID, Guests, InlineWorker, MuteWorker, Talk, device_of

GET_XML_DESC = Procedure.DOMAIN_GET_XML_DESC
KEEPALIVE = dataclasses.replace(protocol.build_packet(1, 2, 0, 0, b""), program=0x6B656570)


def test_one_question_then_the_call() -> None:
    """The client sees neither the questions nor their answers, only the reply to its own call."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.attach(nic(9))
    (question,) = talk.sent()
    assert (question.procedure, question.payload) == (GET_XML_DESC, DOM + protocol.uint(0))
    assert question.serial >= FIRST_SERIAL
    talk.answer(question, protocol.string(domain_xml()))
    (forwarded,) = talk.sent()
    assert (forwarded.serial, forwarded.procedure) == (call.serial, 160)
    assert b"bus='0x00'" in device_of(forwarded)
    assert forwarded.payload.endswith(protocol.uint(1))
    assert guests.locked
    talk.answer(forwarded)
    assert [packet.serial for packet in talk.got()] == [5]
    assert not guests.locked
    assert talk.workers[0].stopped


def test_the_right_to_read_is_asked_for_without_a_job() -> None:
    """A guest whose QEMU hangs answers that question, and the lock comes after it."""
    guests = Guests()
    talk = Talk(guests)
    talk.call(nic(9))
    (question,) = talk.sent()
    assert question.procedure == Procedure.DOMAIN_IS_ACTIVE
    assert not guests.locked


def test_two_domain_xmls_are_asked_for() -> None:
    """LIVE and CONFIG together ask for both domain XMLs; CONFIG for the one of the next start."""
    talk = Talk(Guests())
    talk.attach(nic(9), flags=3)
    (first,) = talk.sent()
    talk.answer(first, protocol.string(domain_xml()))
    (second,) = talk.sent()
    assert [first.payload[-4:], second.payload[-4:]] == [protocol.uint(0), protocol.uint(2)]
    talk.answer(second, protocol.string(domain_xml(nic(1, at(0)), running=False)))
    assert b"bus='0x02'" in device_of(talk.sent()[0])


def test_two_clients_at_once() -> None:
    """The second attach waits until the first one was answered, and then sees what that one did."""
    guests = Guests()
    first, second = Talk(guests), Talk(guests)
    one = first.attach(nic(1))
    (question,) = first.sent()
    second.attach(nic(2))
    assert second.sent() == []
    assert second.session.waits
    first.answer(question, protocol.string(domain_xml()))
    assert first.sent()[0].serial == one.serial
    second.session.retry()
    assert second.sent() == []
    first.answer(one)
    second.session.retry()
    (question,) = second.sent()
    second.answer(question, protocol.string(domain_xml(nic(1, at(0)))))
    assert b"bus='0x02'" in device_of(second.sent()[0])
    assert not second.session.waits


def test_everything_else_goes_on_meanwhile() -> None:
    """A held call holds up neither a keepalive nor another call, however many are held."""
    talk = Talk(Guests())
    talk.worker_class = MuteWorker
    for serial in range(2 * MAX_PENDING_CALLS):
        talk.call(nic(1), serial)
    assert talk.sent() == []
    assert len(talk.workers) == MAX_PENDING_CALLS
    other = protocol.build_packet(Procedure.DOMAIN_GET_XML_DESC, Type.CALL, 99, 0, DOM)
    for packet in (KEEPALIVE, other):
        talk.send(packet)
    assert talk.sent() == [KEEPALIVE, other]


def test_calls_that_wait_for_a_worker_get_one() -> None:
    """When a call is done, the next one is rewritten."""
    talk = Talk(Guests())
    talk.worker_class = None
    calls = [talk.call("<hostdev type='usb'/>", serial) for serial in range(3)]
    assert talk.session.waits
    assert talk.sent() == []
    talk.worker_class = InlineWorker
    talk.session.retry()
    assert talk.sent() == calls
    assert not talk.session.waits


def test_a_held_call_has_a_deadline() -> None:
    """The client's own bytes go on, late answers are nobody's, and the journal names client and guest."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.call(nic(1))
    (question,) = talk.sent()
    talk.session.expire()
    assert talk.sent() == []
    guests.now = HELD_CALL_TIMEOUT
    talk.session.expire()
    assert talk.sent() == [call]
    assert talk.journal == [
        f"the client: an attach of guest 'g': forwarded unmodified: it was not laid out within {HELD_CALL_TIMEOUT:g} s"
    ]
    talk.answer(question, protocol.uint(1))
    assert (talk.sent(), talk.got()) == ([], [])
    reply = talk.answer(call)
    assert talk.got() == [reply]


def test_a_call_that_waits_for_a_lock_has_the_same_deadline() -> None:
    """It does not take the lock with it."""
    guests = Guests()
    held = guests.locks.acquire(UUID)
    assert held is not None
    talk = Talk(guests)
    call = talk.attach(nic(1))
    guests.now = HELD_CALL_TIMEOUT
    talk.session.expire()
    assert talk.sent() == [call]
    held.release()
    assert not guests.locked


def test_a_worker_that_is_killed() -> None:
    """Its call goes on as it came."""
    talk = Talk(Guests())
    talk.worker_class = MuteWorker
    call = talk.call(nic(1))
    (pending,) = [worker._call for worker in talk.workers]
    talk.session.worker_ended(pending)
    assert talk.sent() == [call]
    assert "its worker process was killed" in talk.journal[0]


def test_a_worker_that_talks_nonsense() -> None:
    """An answer that is not one of a worker's gives the call up; what comes after it has no effect."""
    talk = Talk(Guests())
    talk.worker_class = MuteWorker
    call = talk.call(nic(1))
    pending: PendingCall = talk.workers[0]._call
    talk.session.from_worker(pending, build_message(Message.LOCK, b"short"))
    talk.session.from_worker(pending, build_message(Message.DONE, b"late"))
    assert talk.sent() == [call]


def test_a_lock_expires() -> None:
    """An attach whose reply does not come keeps no other one waiting for ever."""
    guests = Guests()
    talk = Talk(guests)
    talk.attach(nic(1))
    talk.answer(talk.sent()[0], protocol.string(domain_xml()))
    assert guests.locked
    guests.now = ATTACH_LOCK_TIMEOUT + 1
    assert not guests.locked


def test_two_attaches_with_one_serial() -> None:
    """Each has the lock for itself, and gives back its own."""
    guests = Guests()
    talk = Talk(guests)
    first, second = talk.call(nic(1)), talk.call(nic(2))
    for question in talk.sent():
        talk.answer(question, protocol.uint(1))
    (question,) = talk.sent()
    talk.answer(question, protocol.string(domain_xml()))
    assert len(talk.sent()) == 1
    talk.answer(first)
    talk.session.retry()
    (question,) = talk.sent()
    talk.answer(question, protocol.string(domain_xml(nic(1, at(0)))))
    assert len(talk.sent()) == 1
    assert guests.locked
    talk.answer(second)
    assert not guests.locked
    assert len(talk.got()) == 2


def test_a_client_that_does_not_read() -> None:
    """It keeps no guest from other clients: its calls go on, its locks are released."""
    guests = Guests()
    talk = Talk(guests)
    talk.attach(nic(1), 5)
    talk.answer(talk.sent()[0], protocol.string(domain_xml()))
    waiting = talk.call(nic(2), 6)
    talk.sent()
    talk.session.give_up_all("it does not read")
    assert talk.sent() == [waiting]
    assert not guests.locked


def test_a_client_that_goes_away() -> None:
    """libvirt still gets the call, laid out, and the lock is kept until it is carried out."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.attach(nic(9))
    talk.session.client_gone()
    assert not talk.session.finished
    talk.answer(talk.sent()[0], protocol.string(domain_xml()))
    (forwarded,) = talk.sent()
    assert b"bus='0x00'" in device_of(forwarded)
    assert not talk.session.finished
    talk.answer(call)
    assert talk.session.finished


def test_a_client_that_goes_away_and_a_libvirt_that_does_not_answer() -> None:
    """The connection ends at last."""
    guests = Guests()
    talk = Talk(guests)
    talk.attach(nic(9))
    talk.session.client_gone()
    guests.now = 10 * HELD_CALL_TIMEOUT
    assert talk.session.finished
    talk.session.close()
    assert not guests.locked


def test_nothing_is_looked_at_before_libvirt_lets_the_client_in() -> None:
    """Every packet goes on as it is until CONNECT_OPEN has succeeded."""
    talk = Talk(Guests(), opened=False)
    early = talk.call(nic(1))
    assert talk.sent() == [early]
    opening = protocol.build_packet(Procedure.CONNECT_OPEN, Type.CALL, 1, 0, b"")
    talk.answer(opening, b"", Status.ERROR)
    early = talk.call(nic(1), 2**32 - 1)
    assert talk.sent() == [early]
    assert talk.workers == []
    talk.answer(opening)
    talk.call(nic(1))
    assert [packet.procedure for packet in talk.sent()] == [Procedure.DOMAIN_IS_ACTIVE]
    assert len(talk.got()) == 2


def test_serials_of_the_gateways_own() -> None:
    """A client that counts that far gets its own replies, and the gateway gets its own."""
    talk = Talk(Guests())
    serials = range(FIRST_SERIAL, FIRST_SERIAL + 3)
    own = [talk.send(protocol.build_packet(GET_XML_DESC, Type.CALL, serial, 0, b"own")) for serial in serials]
    assert talk.sent() == own
    talk.attach(nic(9))
    (question,) = talk.sent()
    assert question.serial not in serials
    late = talk.send(protocol.build_packet(GET_XML_DESC, Type.CALL, question.serial, 0, b"late"))
    assert talk.sent() == []
    replies = [talk.answer(call, b"own") for call in own]
    assert talk.got() == replies
    talk.answer(question, protocol.string(domain_xml()))
    assert late in talk.sent()
    reply = talk.answer(late, b"late")
    assert talk.got() == [reply]


def test_the_gateways_serials_wrap() -> None:
    """They stay above those that clients count from."""
    talk = Talk(Guests())
    talk.session._serial = 0xFFFFFFFF
    talk.call(nic(9))
    assert talk.sent()[0].serial == FIRST_SERIAL


def test_a_client_that_holds_back_too_much() -> None:
    """Beyond the limit, its calls go on as they are; nothing is lost or read no more."""
    talk = Talk(Guests())
    talk.worker_class = MuteWorker
    large = "<interface/>" + " " * (MAX_HELD_BYTES // 3)
    calls = [talk.call(large, serial) for serial in (1, 2, 3)]
    assert talk.sent() == calls[2:]
    assert "too many calls under way" in talk.journal[0]


@pytest.mark.parametrize("answers", [True, False])
def test_a_client_that_may_not_read_the_guest(answers: bool) -> None:
    """It does not get the lock, nor does one that libvirt has yet to answer."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.call(nic(1))
    (question,) = talk.sent()
    if answers:
        talk.answer(question, protocol.error_reply(question, "authentication required").payload, 1)
        assert talk.sent() == [call]
    assert not guests.locked


def test_no_spare_is_an_error_of_the_call() -> None:
    """The client gets an error in place of libvirt's reply, and the guest is free again."""
    guests = Guests()
    talk = Talk(guests)
    talk.attach(nic(9))
    full = domain_xml("".join(nic(n, at(n)) for n in range(5)))
    talk.answer(talk.sent()[0], protocol.string(full))
    assert talk.sent() == []
    (reply,) = talk.got()
    assert (reply.serial, reply.procedure, reply.type, reply.status) == (5, 160, 1, 1)
    assert "papr-hook: guest 'g': no empty vPHB is left" in protocol.error_message(reply)
    assert talk.journal[0].startswith("the client: guest 'g': no empty vPHB is left")
    assert not guests.locked


@pytest.mark.parametrize("answer", ["error", "noise", "nonsense"])
def test_questions_that_fail(answer: str) -> None:
    """Whatever libvirt says, the call itself goes on as it is."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.attach(nic(9))
    (question,) = talk.sent()
    if answer == "error":
        talk.answer(question, protocol.error_reply(question, "no such guest").payload, 1)
    else:
        talk.answer(question, b"\1" if answer == "noise" else protocol.string(b"<no xml"))
    assert talk.sent() == [call]
    assert talk.got() == []
    assert "the client: an attach of guest 'g': forwarded unmodified: guest 'g': " in talk.journal[0]
    assert not guests.locked


@given(st.sampled_from(sorted(REWRITTEN)), st.binary(max_size=120), st.sampled_from([Type.CALL, Type.CALL_WITH_FDS]))
def test_calls_of_noise_go_on_as_they_are(procedure: int, noise: bytes, type_: int) -> None:
    """A payload that is not what the procedure says is libvirt's to judge, once libvirt has refused the questions."""
    talk = Talk(Guests())
    call = talk.send(protocol.build_packet(procedure, type_, 3, 0, noise))
    sent: list[protocol.Packet] = []
    while (new := talk.sent()) and not (sent := [packet for packet in new if packet.serial == 3]):
        for question in new:
            talk.answer(question, protocol.error_reply(question, "no such guest").payload, 1)
    assert sent == [call]
    assert talk.got() == []


@given(st.binary(max_size=120), st.integers(0, 6), st.integers(0, 0xFFFFFFFF))
def test_what_libvirt_says_goes_on_as_it_is(noise: bytes, type_: int, serial: int) -> None:
    """Replies, events and streams that answer no question are the client's."""
    talk = Talk(Guests())
    packet = protocol.build_packet(160, type_, serial, 0, noise)
    talk.session.from_daemon(PacketWithFds(packet))
    assert talk.got() == [packet]
    assert talk.sent() == []
