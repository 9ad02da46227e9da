"""What a relay and a worker send each other."""

from __future__ import annotations

import pytest

from papr_hook.gateway.protocol import PROGRAM, PacketParser
from papr_hook.gateway.worker_protocol import WORKER_PROGRAM, Message, build_message


@pytest.mark.parametrize("message", Message)
def test_a_message_arrives(message: Message) -> None:
    parser = PacketParser()
    parser.receive(build_message(message, b"some text!!!", 4).data)
    packet = parser.next_packet()
    assert packet is not None
    assert (packet.program, packet.procedure, packet.status) == (WORKER_PROGRAM, message, 4)
    assert packet.payload == b"some text!!!"
    assert parser.next_packet() is None


def test_a_message_is_no_call_to_libvirt() -> None:
    assert build_message(Message.DONE).program != PROGRAM
