"""What becomes of a client's attach, seen from the client and from libvirt."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papr_hook.config import Config
from papr_hook.gateway import protocol
from papr_hook.gateway.protocol import PacketWithFds
from papr_hook.gateway.session import Session
from papr_hook.virt.locks import ATTACH_LOCK_TIMEOUT, AttachLocks
from tests.helpers.cli import papr_hook
from tests.helpers.domain_xml import at, domain_xml, nic

UUID = bytes(range(16))
DOM = protocol.string(b"g") + UUID + protocol.uint(1)


class Guests:
    """The attach locks of one host, for several sessions, which are processes of their own on a real one."""

    def __init__(self) -> None:
        self.locks = AttachLocks(os.memfd_create("attach.lock"))

    @property
    def locked(self) -> bool:
        """Return whether a session has the lock of the guest."""
        lock = self.locks.acquire(UUID)
        if lock is not None:
            lock.release()
        return lock is None


class Talk:
    """A session, with a clock that is set by hand and a journal that is kept."""

    def __init__(self, guests: Guests) -> None:
        self.now = 0.0
        self.journal: list[str] = []
        self.session = Session(Config, lambda _, text: self.journal.append(text), guests.locks, lambda: self.now)

    def attach(self, device: str, serial: int = 5, flags: int = 1) -> protocol.Packet:
        """Have a client attach a device that may read the guest."""
        call = self.call(device, serial, flags)
        question = self.session.to_daemon.pop().packet
        assert question.procedure == 14
        self.answer(question, protocol.string(b"<domain/>"))
        return call

    def call(self, device: str, serial: int = 5, flags: int = 1) -> protocol.Packet:
        """Have the client call for an attach."""
        payload = DOM + protocol.string(device.encode()) + protocol.uint(flags)
        call = protocol.build_packet(160, protocol.Type.CALL, serial, 0, payload)
        self.session.from_client(PacketWithFds(call))
        return call

    def sent(self) -> list[protocol.Packet]:
        """What was sent to libvirt since the last look."""
        return drained(self.session.to_daemon)

    def got(self) -> list[protocol.Packet]:
        """What the client got since the last look."""
        return drained(self.session.to_client)

    def answer(self, call: protocol.Packet, payload: bytes = b"", status: int = 0) -> None:
        """Have libvirt answer a call."""
        reply = protocol.build_packet(call.procedure, protocol.Type.REPLY, call.serial, status, payload)
        self.session.from_daemon(PacketWithFds(reply))


def drained(queue: deque[PacketWithFds]) -> list[protocol.Packet]:
    """The packets of a queue, which is empty then."""
    found = [item.packet for item in queue]
    queue.clear()
    return found


def device_of(call: protocol.Packet) -> bytes:
    """The device that a call attaches."""
    reader = protocol.Reader(call.payload)
    reader.domain()
    return reader.string()


def test_one_question_then_the_call() -> None:
    """The client sees neither the question nor its answer, only the reply to its own call."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.attach(nic(9))
    (question,) = talk.sent()
    assert (question.procedure, question.payload) == (14, DOM + protocol.uint(0))
    assert question.serial >= 0x80000000
    talk.answer(question, protocol.string(domain_xml()))
    (forwarded,) = talk.sent()
    assert (forwarded.serial, forwarded.procedure) == (call.serial, 160)
    assert b"bus='0x00'" in device_of(forwarded)
    assert forwarded.payload.endswith(protocol.uint(1))
    assert guests.locked
    talk.answer(forwarded)
    assert [packet.serial for packet in talk.got()] == [5]
    assert not guests.locked


def test_two_definitions_are_asked_for() -> None:
    """LIVE and CONFIG together ask for both definitions; CONFIG for the one of the next start."""
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


def test_one_client_at_once() -> None:
    """So it is with two calls of one client; everything else of it goes on meanwhile."""
    talk = Talk(Guests())
    one, two = talk.attach(nic(1), 5), talk.attach(nic(2), 6)
    keepalive = dataclasses.replace(protocol.build_packet(1, 2, 0, 0, b""), program=0x6B656570)
    talk.session.from_client(PacketWithFds(keepalive))
    question, passed = talk.sent()
    assert passed is keepalive
    talk.answer(question, protocol.string(domain_xml()))
    assert [packet.serial for packet in talk.sent()] == [one.serial]
    talk.answer(one)
    talk.session.retry()
    assert talk.sent()[0].procedure == 14
    assert two.serial not in [packet.serial for packet in talk.got()]


def test_patience_ends() -> None:
    """An attach that waits too long goes on beside the other, and the journal says so."""
    guests = Guests()
    assert guests.locks.acquire(UUID) is not None
    talk = Talk(guests)
    talk.attach(nic(1))
    assert talk.sent() == []
    talk.now = ATTACH_LOCK_TIMEOUT + 1
    talk.session.retry()
    (question,) = talk.sent()
    talk.answer(question, protocol.string(domain_xml()))
    (forwarded,) = talk.sent()
    assert b"bus='0x00'" in device_of(forwarded)
    talk.answer(forwarded)
    assert talk.journal == ["guest 'g': another attach to it does not end, and is not waited for"]
    assert guests.locked


@pytest.mark.parametrize("answers", [True, False])
def test_who_may_not_read_a_guest_does_not_reserve_it(answers: bool) -> None:
    """Nor does a client that libvirt has yet to answer."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.call(nic(1))
    (question,) = talk.sent()
    if answers:
        talk.answer(question, protocol.error_reply(question, "authentication required").payload, 1)
        assert talk.sent() == [call]
    assert not guests.locked


def test_no_room_is_an_error_of_the_call() -> None:
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
    assert "an attach goes to libvirt as it is: guest 'g': " in talk.journal[0]
    assert not guests.locked


@given(st.sampled_from([8, 9, 10, 11, 136, 160, 196, 309, 310, 350]), st.binary(max_size=120), st.integers(0, 6))
def test_calls_of_noise_go_on_as_they_are(procedure: int, noise: bytes, type_: int) -> None:
    """A payload that is not what the procedure says is libvirt's to judge."""
    talk = Talk(Guests())
    call = protocol.build_packet(procedure, type_, 3, 0, noise)
    talk.session.from_client(PacketWithFds(call))
    assert [packet for packet in talk.sent() if packet.serial == 3] in ([call], [])
    assert talk.got() == []


@given(st.binary(max_size=120), st.integers(0, 6), st.integers(0, 0xFFFFFFFF))
def test_what_libvirt_says_goes_on_as_it_is(noise: bytes, type_: int, serial: int) -> None:
    """Replies, events and streams that answer no question are the client's."""
    talk = Talk(Guests())
    packet = protocol.build_packet(160, type_, serial, 0, noise)
    talk.session.from_daemon(PacketWithFds(packet))
    assert talk.got() == [packet]
    assert talk.sent() == []


def test_a_gateway_without_a_socket(tmp_path: Path) -> None:
    """Without a place to listen, or a libvirt whose socket's rights it could take, it says so and ends."""
    ran = papr_hook("gateway", "serve")
    assert (ran.status, ran.err) == (2, "papr-hook: systemd passed no sockets, and --listen names none\n")
    nowhere = tmp_path / "upstream"
    ran = papr_hook("gateway", "serve", "--listen", str(tmp_path / "sock"), "--upstream", str(nowhere))
    assert (ran.status, ran.err) == (2, f"papr-hook: {nowhere}: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_another_call_in_place_of_the_clients() -> None:
    """The client gets the reply under its own procedure, without the other one's payload."""
    talk = Talk(Guests())
    snapshot = protocol.string(b"before") + DOM + protocol.uint(1)
    talk.session.from_client(PacketWithFds(protocol.build_packet(192, 0, 5, 0, snapshot)))
    crowded = domain_xml(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1, running=False)
    inside = f"<domainsnapshot><state>shutoff</state>{crowded.decode()}</domainsnapshot>".encode()
    xml, off = protocol.string(crowded), protocol.uint(1)
    answers = {186: protocol.string(inside), 151: off, 192: b"", 14: xml, 350: DOM}
    while (call := talk.session.to_daemon.popleft().packet).serial != 5:
        talk.answer(call, answers[call.procedure])
    assert (call.procedure, call.payload) == (196, DOM + protocol.uint(0))
    talk.answer(call, DOM)
    assert [(reply.procedure, reply.serial, reply.status, reply.payload) for reply in talk.got()] == [(192, 5, 0, b"")]
