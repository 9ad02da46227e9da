"""Many connections, malformed packets, and processes that end."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from papr_hook.gateway import protocol
from tests.harness.gateway_host import CLIENTS, PYTHON, GatewayHost
from tests.harness.guest_image import Image
from tests.harness.libvirt_host import Host
from tests.helpers.guests import complies, old_guest
from tests.helpers.paths import PROJECT
from tests.helpers.polling import wait_until
from tests.helpers.raw_client import KEEPALIVE, PING, PONG, RawClient

CONNECT_GET_CAPABILITIES = 7

NOISE = {
    "length 0": bytes(28),
    "length 27": struct.pack(">7I", 27, 0, 0, 0, 0, 0, 0),
    "too long": struct.pack(">I", 0x7FFFFFFF),
    "too long before it is let in": struct.pack(">I", 131_073),
    "text": b"GET / HTTP/1.0\r\n\r\n",
    "too many descriptors": struct.pack(">8I", 32, protocol.PROGRAM, 1, 1, 4, 0, 0, 33),
    "a packet and then noise": struct.pack(">7I", 28, KEEPALIVE, 1, PING, 2, 0, 0) + b"\xff" * 9,
}


def test_a_thousand_connections(gateway: GatewayHost) -> None:
    """One after another, they leave nothing."""
    before = gateway.fds()
    for _ in range(1000):
        with gateway.connect() as client:
            RawClient(client).open()
    wait_until(lambda: gateway.clients() == 0)
    assert gateway.fds() == before
    assert len(gateway.relays()) == 1
    wait_until(lambda: gateway.relays() == [])
    assert gateway.fds() == before


def test_two_hundred_connections(gateway: GatewayHost) -> None:
    """At once, each is served, and they leave nothing."""
    with ExitStack() as stack:
        talks = [RawClient(stack.enter_context(gateway.connect())) for _ in range(200)]
        for talk in talks:
            talk.open()
        for talk in talks:
            talk.client.sendall(talk.ping())
        assert {talk.next().procedure for talk in talks} == {PONG}
        assert gateway.clients() == 200
        assert len(gateway.relays()) == 1
    wait_until(lambda: gateway.clients() == 0)


@pytest.mark.parametrize("name", NOISE)
def test_noise_ends_its_own_connection(gateway: GatewayHost, name: str) -> None:
    """A peer that sends no packet is cut off; another one does not notice."""
    with gateway.connect() as good, gateway.connect() as bad:
        talk = RawClient(good)
        talk.open()
        bad.sendall(NOISE[name])
        with suppress(ConnectionResetError):
            while bad.recv(65536):
                pass
        good.sendall(talk.ping())
        assert talk.next().procedure == PONG


def test_descriptors_that_nobody_announced(gateway: GatewayHost) -> None:
    """They end the connection, too, and stay nowhere."""
    with gateway.connect() as bad, open(os.devnull, "rb") as null:
        socket.send_fds(bad, [bytes(4)], [null.fileno()])
        with suppress(ConnectionResetError):
            assert bad.recv(100) == b""


def test_half_a_frame(gateway: GatewayHost) -> None:
    """It waits for its other half, and ends with its peer."""
    with gateway.connect() as client:
        talk = RawClient(client)
        talk.open()
        ping = talk.ping()
        client.sendall(ping[:9])
        assert gateway.host.virsh("hostname").returncode == 0
        client.sendall(ping[9:] + ping[:5])
        assert talk.next().procedure == PONG


def test_a_peer_that_does_not_read(gateway: GatewayHost) -> None:
    """It fills its own buffers and no others: its process stays small, and the others are served."""
    with gateway.connect() as deaf:
        talk = RawClient(deaf)
        talk.open()
        deaf.setblocking(False)
        sent = 0
        call = (
            protocol.build_packet(CONNECT_GET_CAPABILITIES, protocol.Type.CALL, 5, 0, b"").data * 50
        )  # its answer is long
        (relay,) = gateway.relays()
        with suppress(BlockingIOError):
            while sent < 1 << 24:
                sent += deaf.send(call)
        assert gateway.host.virsh("hostname").stdout == "gated\n"
        status = gateway.host.read(f"/proc/{relay}/status")
        assert int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) < 200_000


def test_killed_relays_and_parents(own: GatewayHost, image: Image, root: Path) -> None:
    """They take no guest and no domain XML with them; clients of another relay stay served."""
    host = own.host
    host.define(old_guest(image, root))
    host.virsh("start", "--paused", "g")
    with own.connect() as first, ExitStack() as stack:
        one = RawClient(first)
        one.open()
        host.run(["kill", "-9", str(own.relays()[0])])
        with pytest.raises((EOFError, ConnectionResetError)):
            one.next()
        two = RawClient(stack.enter_context(own.connect()))
        two.open()
        own.stop()
        two.client.sendall(two.ping())
        assert two.next().procedure == PONG
        assert host.virsh("hostname", check=False).returncode != 0
        own.start()
    assert host.virsh("domstate", "g").stdout.strip() == "paused"
    assert complies(host.dumpxml("g", "--inactive"))


def test_libvirt_goes_and_comes_back(own: GatewayHost) -> None:
    """A client is cut off with libvirt, and the next connection works when it is back."""
    with own.connect() as client:
        talk = RawClient(client)
        talk.open()
        own.host.stop_daemon()
        with pytest.raises(EOFError):
            talk.next()
    assert own.host.virsh("hostname", check=False).returncode != 0
    own.host.start_daemon()
    assert own.host.virsh("hostname").stdout == "own\n"


ACTIVATE = """
import os, socket, sys
one = socket.socket(socket.AF_UNIX)
one.bind(sys.argv[1])
one.listen()
os.dup2(one.fileno(), 9)
os.dup2(9, 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), PYTHONPATH=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "papr_hook", "gateway", "serve"])
"""


def test_socket_activation(make_host: Callable[[str], Host]) -> None:
    """It serves the sockets that systemd hands over, and libvirt where the settings say."""
    one = GatewayHost(make_host("activated"))
    process = subprocess.Popen(one.host.argv([PYTHON, "-c", ACTIVATE, CLIENTS, str(PROJECT)]))
    wait_until(lambda: one.host.virsh("uri", check=False).returncode == 0)
    assert one.host.virsh("hostname").stdout == "activated\n"
    one.host.stop()
    process.wait()
