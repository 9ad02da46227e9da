"""Packets and file descriptors over a real socket."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator

import pytest

from papr_hook.gateway.protocol import PacketWithFds, RemoteProtocolError, Type, build_packet, uint
from papr_hook.gateway.streams import PacketStream


@pytest.fixture
def pair() -> Iterator[tuple[PacketStream, PacketStream]]:
    """Connect two streams."""
    ours, theirs = (PacketStream(sock) for sock in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def open_fds() -> int:
    """Return how many file descriptors this process has open, but for those that only garbage still has."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def with_fds(count: int) -> PacketWithFds:
    """Return a packet with new file descriptors."""
    data = build_packet(310, Type.CALL_WITH_FDS, 3, 0, uint(count) + b"args").data
    parser = PacketStream(socket.socket()).parser
    parser.receive(data + bytes(count))
    packet = parser.next_packet()
    assert packet is not None
    return PacketWithFds(packet, tuple(os.open(os.devnull, os.O_RDONLY) for _ in range(count)))


def test_fds_travel_with_their_packet(pair: tuple[PacketStream, PacketStream]) -> None:
    """The receiver gets as many as were sent, in order, and the sender keeps none."""
    ours, theirs = pair
    before = open_fds()
    first, second = with_fds(3), PacketWithFds(build_packet(1, 0, 4, 0, b"after"))
    for item in (first, second):
        ours.put(item)
    assert ours.has_output
    ours.send()
    assert open_fds() == before
    received: list[PacketWithFds] = []
    while len(received) < 2:
        theirs.receive()
        while (got := theirs.next_packet()) is not None:
            received.append(got)
    assert [item.packet for item in received] == [first.packet, second.packet]
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in received[0].fds] == [os.devnull] * 3
    for fd in received[0].fds:
        os.close(fd)


def test_fds_that_were_not_announced(pair: tuple[PacketStream, PacketStream]) -> None:
    """They are an error, and are closed with the stream."""
    ours, theirs = pair
    before = open_fds()
    with open(os.devnull, "rb") as null:
        socket.send_fds(ours.sock, [bytes(2)], [null.fileno()])
    theirs.receive()
    with pytest.raises(RemoteProtocolError, match="not announced"):
        theirs.next_packet()
    theirs.close()
    assert open_fds() == before - 1


def test_an_announced_fd_that_does_not_come(pair: tuple[PacketStream, PacketStream]) -> None:
    """A byte without its descriptor is an error."""
    ours, theirs = pair
    ours.sock.send(with_fds(0).packet.data[:28] + uint(1) + b"args" + b"\0")
    theirs.receive()
    with pytest.raises(RemoteProtocolError, match="missing"):
        theirs.next_packet()


def test_output_waits_for_a_slow_peer(pair: tuple[PacketStream, PacketStream]) -> None:
    """Nothing is lost; what waits is counted; the rest can be dropped with its descriptors."""
    ours, theirs = pair
    before = open_fds()
    big = PacketWithFds(build_packet(1, 0, 4, 0, bytes(4 << 20)))
    ours.put(big)
    ours.put(with_fds(2))
    ours.send()
    assert 0 < ours.waiting < len(big.packet.data) + 36
    ours.drop_output()
    assert (ours.waiting, ours.has_output, open_fds()) == (0, False, before)


def test_a_packet_of_a_stream_is_sent_at_once(pair: tuple[PacketStream, PacketStream]) -> None:
    """A peer that is busy does not keep a part of it here."""
    ours, _ = pair
    ours.put(PacketWithFds(build_packet(208, Type.STREAM, 3, 2, bytes(262_120))))
    ours.send()
    assert not ours.has_output


def test_a_peer_that_closes(pair: tuple[PacketStream, PacketStream]) -> None:
    """What it sent before is read; then the stream has ended, also if it did not read all that it got."""
    ours, theirs = pair
    packet = build_packet(1, 0, 4, 0, b"last words")
    theirs.sock.send(b"unread")
    ours.sock.send(packet.data)
    ours.sock.close()
    theirs.receive()
    assert theirs.next_packet() == PacketWithFds(packet)
    while not theirs.ended:
        theirs.receive()
    assert theirs.next_packet() is None
