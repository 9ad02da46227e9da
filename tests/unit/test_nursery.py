"""The nursery as its users see it: each request gets a worker, whatever became of the one before."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from papr_hook.config import Config
from papr_hook.gateway.nursery import Nursery, request_worker
from papr_hook.gateway.protocol import Packet, PacketParser, Procedure, Reader, Type, build_packet, string, uint
from papr_hook.gateway.worker_protocol import WORKER_PROGRAM, Message
from tests.helpers.domain_xml import at, domain_xml, nic
from tests.helpers.polling import wait_until

CROWDED = domain_xml(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1, running=False)
DEFINE = build_packet(Procedure.DOMAIN_DEFINE_XML_FLAGS, Type.CALL, 5, 0, string(CROWDED) + uint(0))
SECONDS = 60.0


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    """Start a nursery, and wait until it has ended because nobody can ask it for a worker."""
    one = Nursery(Config)
    one.start()
    yield one
    one.requests.close()
    wait_until(lambda: os.waitpid(one.pid, os.WNOHANG)[0] == one.pid)


def answer(nursery: Nursery) -> Packet:
    """Have a worker lay out a definition, and return its last message."""
    sock = request_worker(nursery.requests)
    assert sock is not None
    return last_message(sock)


def last_message(sock: socket.socket) -> Packet:
    """Send a definition to a worker, and return what it says but for lines of the journal."""
    sock.settimeout(SECONDS)
    parser = PacketParser()
    with sock:
        sock.sendall(DEFINE.data)
        while True:
            while (packet := parser.next_packet()) is None:
                parser.receive(sock.recv(65536))
            if (packet.program, packet.procedure) != (WORKER_PROGRAM, Message.LOG):
                return packet


def test_each_request_has_a_worker(nursery: Nursery) -> None:
    """One after the other, and each call is laid out."""
    for _ in range(3):
        done = answer(nursery)
        assert done.procedure == Message.DONE
        assert Reader(done.payload).string().count(b"pci-root") > 4


def test_a_request_outlives_the_nursery(nursery: Nursery) -> None:
    """A request that was made while there was none is served by the next one."""
    os.kill(nursery.pid, signal.SIGKILL)
    os.waitpid(nursery.pid, 0)
    # A worker that it has forked may still take one request.
    socks = [request_worker(nursery.requests) for _ in range(2)]
    nursery.start()
    for sock in socks:
        assert sock is not None
        assert last_message(sock).procedure == Message.DONE


def test_requests_that_nobody_takes() -> None:
    """When the socket is full the call waits, and the process keeps no file descriptor of it."""
    nursery = Nursery(Config)
    before = len(os.listdir("/proc/self/fd"))
    socks = []
    while (sock := request_worker(nursery.requests)) is not None:
        socks.append(sock)
    assert socks
    assert len(os.listdir("/proc/self/fd")) - before == len(socks)
    for sock in socks:
        sock.close()
