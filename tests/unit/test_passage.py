"""The packets that bypass the session are exactly those that it would pass on unchanged."""

from __future__ import annotations

import pytest

from papr_hook.gateway.passage import measure_from_client, measure_from_daemon
from papr_hook.gateway.protocol import MAX_PACKET, Procedure, Type, build_packet, uint
from papr_hook.gateway.session import FIRST_SERIAL

ANY = build_packet(Procedure.DOMAIN_GET_XML_DESC, Type.CALL, 3, 0, b"args").data
REPLY = build_packet(Procedure.DOMAIN_GET_XML_DESC, Type.REPLY, 3, 0, b"xml!").data
EVENT = build_packet(318, Type.MESSAGE, 0, 0, b"event").data


def from_client(data: bytes, limit: int = MAX_PACKET, opened: bool = True, whole: bool = False) -> int:
    return measure_from_client(memoryview(data), len(data), limit, opened, whole)


def from_daemon(data: bytes) -> int:
    return measure_from_daemon(memoryview(data), len(data))


def test_packets_pass() -> None:
    """Several at once, with all bytes of one whose header is complete."""
    for measure, packet in ((from_client, ANY), (from_daemon, REPLY), (from_daemon, EVENT)):
        assert measure(packet * 3) == 3 * len(packet)
        for cut in (1, 4, 27):
            assert measure(packet + packet[:cut]) == len(packet)
            assert measure(packet[:cut]) == 0
        for cut in (28, 29, len(packet) - 1):
            assert measure(packet + packet[:cut]) == 2 * len(packet)
            assert measure(packet[:cut]) == len(packet)


def test_only_whole_packets_pass() -> None:
    """A client's packet that is not complete may have to wait until it is."""
    for cut in (28, 29, len(ANY) - 1):
        assert from_client(ANY + ANY[:cut], whole=True) == len(ANY)


@pytest.mark.parametrize(
    "packet",
    [
        build_packet(Procedure.DOMAIN_DEFINE_XML, Type.CALL, 3, 0, b"").data,
        build_packet(Procedure.DOMAIN_GET_XML_DESC, Type.CALL, FIRST_SERIAL, 0, b"").data,
        build_packet(Procedure.DOMAIN_GET_XML_DESC, Type.CALL_WITH_FDS, 3, 0, uint(1)).data,
        uint(27) + ANY[4:],
        uint(MAX_PACKET + 1) + ANY[4:],
    ],
)
def test_a_clients_packet_that_the_session_looks_at(packet: bytes) -> None:
    """A call that is rewritten, a serial of the gateway's own, descriptors and malformed lengths."""
    assert from_client(ANY + packet + ANY) == len(ANY)


def test_before_libvirt_lets_the_client_in() -> None:
    """Only the boundaries of packets count, and how long they may be."""
    call = build_packet(Procedure.DOMAIN_DEFINE_XML, Type.CALL, FIRST_SERIAL, 0, bytes(100)).data
    assert from_client(call, opened=False) == len(call)
    assert from_client(call, limit=len(call) - 1, opened=False) == 0


@pytest.mark.parametrize(
    "packet",
    [
        build_packet(Procedure.CONNECT_OPEN, Type.REPLY, 1, 0, b"").data,
        build_packet(Procedure.DOMAIN_DEFINE_XML, Type.REPLY, 3, 0, b"").data,
        build_packet(Procedure.DOMAIN_GET_XML_DESC, Type.REPLY, FIRST_SERIAL, 0, b"").data,
        build_packet(Procedure.DOMAIN_GET_XML_DESC, Type.REPLY_WITH_FDS, 3, 0, uint(1)).data,
        uint(27) + REPLY[4:],
        uint(MAX_PACKET + 1) + REPLY[4:],
    ],
)
def test_a_packet_of_libvirts_that_the_session_looks_at(packet: bytes) -> None:
    """Replies that somebody waits for, descriptors and malformed lengths."""
    assert from_daemon(REPLY + packet + REPLY) == len(REPLY)
