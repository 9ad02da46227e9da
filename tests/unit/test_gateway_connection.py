"""Packets that a connection passes on as they arrive, over real sockets: streams, large replies, and their ends."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from papr_hook.gateway import connection as connection_module
from papr_hook.gateway import relay as relay_module
from papr_hook.gateway.protocol import MAX_PACKET, Procedure, Reader, Type, build_packet, error_message, string, uint
from papr_hook.gateway.worker_protocol import Message, build_message
from tests.helpers.relay_host import SECONDS, Peer, RelayHost

VOLUME_UPLOAD = 208
LONG = build_packet(VOLUME_UPLOAD, Type.STREAM, 3, 2, os.urandom(1 << 20)).data
HALF = 600_000
XML = b"<domain/>"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RelayHost]:
    """Run a relay of root's."""
    one = RelayHost(tmp_path)
    yield one
    one.stop()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Peer:
    """Have calls rewritten by this worker, which the test plays."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    monkeypatch.setattr(relay_module, "request_worker", lambda _: ours)
    return Peer(theirs)


def send_all(sock: socket.socket, data: bytes, numbers: random.Random) -> None:
    """Send data in portions of any size."""
    view = memoryview(data)
    while view:
        size = numbers.choice((1, 27, 28, 5000, 300_000))
        sock.sendall(view[:size])
        view = view[size:]


def receive_all(sock: socket.socket, size: int, numbers: random.Random) -> bytes:
    """Receive a number of bytes, in portions of any size."""
    data = bytearray()
    while len(data) < size:
        part = sock.recv(min(size - len(data), numbers.choice((1, 28, 5000, 300_000))))
        assert part, f"ended after {len(data)} bytes"
        data += part
    return bytes(data)


def fill(sock: socket.socket, data: bytes) -> int:
    """Send what a socket takes until its peer has taken nothing for a second, and return the number of bytes."""
    sock.settimeout(1)
    sent = 0
    with suppress(TimeoutError):
        while sent < len(data):
            sent += sock.send(data[sent : sent + 65536])
    sock.settimeout(SECONDS)
    return sent


@pytest.mark.parametrize("seed", range(4))
def test_packets_of_any_size_both_ways(host: RelayHost, seed: int) -> None:
    """Every byte arrives, in order, whatever portions it was sent and received in."""
    numbers = random.Random(seed)
    client, daemon = host.open()
    threads = []
    arrived: dict[Peer, bytes] = {}
    sent: dict[Peer, bytes] = {}
    for source, target in ((client, daemon), (daemon, client)):
        sizes = [numbers.choice((0, 1, 24, 4000, 262_120, 900_000)) for _ in range(25)]
        stream = [build_packet(VOLUME_UPLOAD, Type.STREAM, 3, 2, numbers.randbytes(size)).data for size in sizes]
        sent[target] = b"".join(stream)

        def receive(target: Peer = target) -> None:
            arrived[target] = receive_all(target.sock, len(sent[target]), random.Random(seed))

        threads.append(threading.Thread(target=send_all, args=(source.sock, sent[target], random.Random(seed))))
        threads.append(threading.Thread(target=receive))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arrived == sent


def test_a_peer_that_does_not_read(host: RelayHost) -> None:
    """The other one has to wait, as without a gateway; nothing is lost."""
    for upload in (True, False):
        client, daemon = host.open()
        source, target = (client, daemon) if upload else (daemon, client)
        data = LONG * 4
        sent = fill(source.sock, data)
        assert sent < 2 << 20
        rest = threading.Thread(target=source.sock.sendall, args=(data[sent:],))
        rest.start()
        assert receive_all(target.sock, len(data), random.Random(1)) == data
        rest.join()


@pytest.mark.parametrize("upload", [True, False])
def test_a_peer_that_goes_amid_a_packet(host: RelayHost, upload: bool) -> None:
    """The other one gets what was sent, and then the end."""
    client, daemon = host.open()
    source, target = (client, daemon) if upload else (daemon, client)

    def send_and_go() -> None:
        source.sock.sendall(LONG[:HALF])
        source.sock.close()

    sender = threading.Thread(target=send_and_go)
    sender.start()
    assert receive_all(target.sock, HALF, random.Random(1)) == LONG[:HALF]
    assert target.ended()
    sender.join()


@pytest.mark.parametrize("upload", [True, False])
def test_a_reader_that_goes_amid_a_packet(host: RelayHost, upload: bool) -> None:
    """The connection of the other one ends."""
    client, daemon = host.open()
    source, target = (client, daemon) if upload else (daemon, client)
    source.sock.sendall(LONG[:100])
    receive_all(target.sock, 100, random.Random(1))
    target.sock.close()
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            source.sock.sendall(LONG)


def test_a_descriptor_amid_a_packet(host: RelayHost) -> None:
    """It ends the connection, and reaches nobody."""
    client, daemon = host.open()
    client.sock.sendall(LONG[:100])
    receive_all(daemon.sock, 100, random.Random(1))
    with open(os.devnull, "rb") as null:
        socket.send_fds(client.sock, [LONG[100:200]], [null.fileno()])
    assert client.ended()
    assert daemon.ended()
    assert "not announced" in host.journal[0]


def test_a_call_is_not_kept_by_a_client_that_stops_amid_a_packet(host: RelayHost, worker: Peer) -> None:
    """The client's own packet waits until it is complete, not what the gateway asks libvirt for its call."""
    client, daemon = host.open()
    client.send(Procedure.DOMAIN_DEFINE_XML, string(XML), serial=5)
    worker.next()
    client.sock.sendall(LONG[:200_000])
    question = build_packet(Procedure.DOMAIN_GET_XML_DESC, Type.CALL, 1, 0, bytes(16))
    worker.sock.sendall(question.data)
    assert daemon.next().procedure == Procedure.DOMAIN_GET_XML_DESC
    worker.sock.sendall(build_message(Message.DONE, string(b"<laid-out/>")).data)
    assert Reader(daemon.next().payload).string() == b"<laid-out/>"
    sender = threading.Thread(target=client.sock.sendall, args=(LONG[200_000:],))
    sender.start()
    assert daemon.next().data == LONG
    sender.join()


def test_an_answer_of_the_gateway_comes_after_the_packet_under_way(host: RelayHost, worker: Peer) -> None:
    """A call is refused while a packet of libvirt's arrives."""
    client, daemon = host.open()
    daemon.sock.sendall(LONG[:100])
    receive_all(client.sock, 100, random.Random(1))
    client.send(Procedure.DOMAIN_DEFINE_XML, string(XML), serial=5)
    worker.next()
    worker.sock.sendall(build_message(Message.REFUSED, b"no room").data)
    with pytest.raises(EOFError):
        worker.next()  # the relay has taken the answer
    sender = threading.Thread(target=daemon.sock.sendall, args=(LONG[100:],))
    sender.start()
    assert receive_all(client.sock, len(LONG) - 100, random.Random(1)) == LONG[100:]
    sender.join()
    reply = client.next()
    assert (reply.serial, error_message(reply)) == (5, "papr-hook: no room")


def test_a_client_that_does_not_read_amid_a_packet(
    host: RelayHost, worker: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its call is not held any longer: it must not keep a guest's lock."""
    monkeypatch.setattr(connection_module, "SLOW_CLIENT_TIMEOUT", 0.1)
    client, daemon = host.open()
    client.send(Procedure.DOMAIN_DEFINE_XML, string(XML), serial=5)
    worker.next()
    assert fill(daemon.sock, LONG * 2) < 2 * len(LONG)
    assert Reader(daemon.next().payload).string() == XML
    assert "the client does not read" in host.journal[0]


def test_the_longest_packet_is_not_collected(host: RelayHost) -> None:
    """libvirt has its start before its end is sent."""
    client, daemon = host.open()
    start = uint(MAX_PACKET) + LONG[4:50_000]
    client.sock.sendall(start)
    assert receive_all(daemon.sock, len(start), random.Random(1)) == start
