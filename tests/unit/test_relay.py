"""The relay with real sockets and real workers, between a client and a libvirt that this test plays."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from papr_hook.gateway import limits
from papr_hook.gateway import relay as relay_module
from papr_hook.gateway.protocol import Procedure, Reader, Type, string, uint
from tests.helpers.domain_xml import at, domain_xml, nic
from tests.helpers.polling import wait_until
from tests.helpers.relay_host import SECONDS, Peer, RelayHost

CROWDED = domain_xml(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1, running=False)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RelayHost]:
    """Run a relay of root's."""
    monkeypatch.setattr(limits, "STAY_BYTES", 1 << 40)  # workers have the size of this process, unlike the gateway's
    one = RelayHost(tmp_path)
    yield one
    one.stop()


def test_a_domain_xml_is_laid_out_by_a_worker(host: RelayHost) -> None:
    """The client's call reaches libvirt with the layout, and the reply reaches the client."""
    client, daemon = host.open()
    client.send(Procedure.DOMAIN_DEFINE_XML, string(CROWDED), serial=5)
    call = daemon.next()
    assert (call.procedure, call.serial) == (Procedure.DOMAIN_DEFINE_XML, 5)
    assert Reader(call.payload).string().count(b"pci-root") > 4
    daemon.send(Procedure.DOMAIN_DEFINE_XML, b"ok", Type.REPLY, 5)
    assert client.next().payload == b"ok"
    client.sock.close()
    assert daemon.ended()


def test_a_client_that_sends_and_goes(host: RelayHost) -> None:
    """libvirt gets its call all the same, laid out, and the connection ends after the reply."""
    client, daemon = host.open()
    client.send(Procedure.DOMAIN_DEFINE_XML, string(CROWDED), serial=5)
    client.sock.close()
    call = daemon.next()
    assert b"pci-root" in call.payload
    daemon.send(Procedure.DOMAIN_DEFINE_XML, b"ok", Type.REPLY, 5)
    assert daemon.ended()


def test_a_worker_that_is_killed(host: RelayHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its call goes on unmodified; the client's other packets do not wait for it."""
    client, daemon = host.open()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    monkeypatch.setattr(relay_module, "request_worker", lambda _: ours)
    client.send(Procedure.DOMAIN_DEFINE_XML, string(CROWDED), serial=5)
    client.send(Procedure.DOMAIN_GET_XML_DESC, serial=6)
    assert daemon.next().serial == 6
    theirs.close()
    call = daemon.next()
    assert (call.serial, Reader(call.payload).string()) == (5, CROWDED)
    assert "forwarded unmodified" in host.journal[0]


def test_no_worker_is_to_be_had(host: RelayHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the nursery, calls go on unmodified."""

    def fail(_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    client, daemon = host.open()
    monkeypatch.setattr(relay_module, "request_worker", fail)
    client.send(Procedure.DOMAIN_DEFINE_XML, string(CROWDED), serial=5)
    assert Reader(daemon.next().payload).string() == CROWDED
    assert "no worker process: Broken pipe" in host.journal[0]


def test_malformed_packets_end_their_connection(host: RelayHost) -> None:
    """Another client of the same user does not notice."""
    good, daemon = host.open()
    bad, _ = host.connect()
    bad.sock.sendall(bytes(28))
    assert bad.ended()
    good.send(Procedure.DOMAIN_GET_XML_DESC, serial=9)
    assert daemon.next().serial == 9
    assert "connection ended: packet of 0 bytes" in host.journal[0]


def test_a_client_that_is_not_let_in_sends_little(host: RelayHost) -> None:
    """A packet longer than SASL needs ends its connection, until libvirt has let it in."""
    client, _ = host.connect()
    client.sock.sendall(uint(131_073))
    assert client.ended()
    client, daemon = host.open()
    sender = threading.Thread(target=client.send, args=(Procedure.DOMAIN_GET_XML_DESC, bytes(1 << 20)))
    sender.start()
    assert len(daemon.next().payload) == 1 << 20
    sender.join()


def test_without_libvirt(tmp_path: Path) -> None:
    """The client is cut off, and the journal says why."""
    one = RelayHost(tmp_path)
    one.upstream.close()
    (tmp_path / "upstream").unlink()
    assert Peer(one.hand_over()).ended()
    assert "cannot connect to" in one.journal[0]
    one.channel.close()


def test_clients_that_are_not_let_in_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user has as many such connections as libvirt would give him; the next one is served when one has gone."""
    monkeypatch.setattr(relay_module, "MAX_ANONYMOUS", 2)
    one = RelayHost(tmp_path, uid=1000)
    (first, _), second = one.connect(), one.connect()
    waiting = Peer(one.hand_over())
    one.upstream.settimeout(0.3)
    with pytest.raises(TimeoutError):
        one.upstream.accept()
    one.upstream.settimeout(SECONDS)
    first.sock.close()
    one.upstream.accept()
    for peer in (waiting, *second):
        peer.sock.close()
    one.channel.close()


def test_a_relay_without_clients_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main process then cannot send it a client, and starts another one."""
    monkeypatch.setattr(relay_module, "LINGER", 0.1)
    one = RelayHost(tmp_path)
    client, daemon = one.open()
    client.sock.close()
    assert daemon.ended()
    one.thread.join(SECONDS)
    with pytest.raises(BrokenPipeError):
        one.hand_over()


def test_the_nursery_starts_again(host: RelayHost) -> None:
    """A request that nobody took is answered by the next one."""
    client, daemon = host.open()
    os.kill(host.nursery.pid, signal.SIGKILL)
    client.send(Procedure.DOMAIN_DEFINE_XML, string(CROWDED), serial=5)
    host.nursery.start()
    assert b"pci-root" in daemon.next().payload


def test_many_clients(host: RelayHost) -> None:
    """Hundreds are served by one process, and leave nothing in it."""
    before = len(os.listdir("/proc/self/fd"))
    pairs = [host.open() for _ in range(200)]
    for number, (client, daemon) in enumerate(pairs):
        client.send(Procedure.DOMAIN_GET_XML_DESC, serial=number)
        assert daemon.next().serial == number
    for client, daemon in pairs:
        client.sock.close()
        assert daemon.ended()
        daemon.sock.close()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def define(client: Peer, daemon: Peer, serial: int) -> None:
    """Have a worker lay out a domain XML."""
    client.send(Procedure.DOMAIN_DEFINE_XML, string(CROWDED), serial=serial)
    assert b"pci-root" in daemon.next().payload


def workers(host: RelayHost) -> set[int]:
    """Return the nursery's workers."""
    return {int(pid) for pid in Path(f"/proc/{host.nursery.pid}/task/{host.nursery.pid}/children").read_text().split()}


def test_a_worker_takes_the_next_call(host: RelayHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of an identity's clients meet the same process, while it waits."""
    monkeypatch.setattr(relay_module, "WORKER_LINGER", SECONDS)
    (first, daemon), (second, other) = host.open(), host.open()
    define(first, daemon, 1)
    wait_until(lambda: len(workers(host)) == 2)  # the one that stays, and the next one of the nursery
    before = workers(host)
    define(first, daemon, 2)
    define(second, other, 1)
    assert workers(host) == before


def test_an_idle_worker_is_killed(host: RelayHost) -> None:
    """The next call has another one."""
    client, daemon = host.open()
    define(client, daemon, 1)
    before = workers(host)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not before & workers(host))
    define(client, daemon, 2)


def test_idle_workers_do_not_stay(host: RelayHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end after a while, and at once if there are too many."""
    monkeypatch.setattr(relay_module, "WORKER_LINGER", 0.1)
    client, daemon = host.open()
    define(client, daemon, 1)
    wait_until(lambda: len(workers(host)) == 1)
    monkeypatch.setattr(relay_module, "WORKER_LINGER", 60)
    monkeypatch.setattr(relay_module, "MAX_IDLE_WORKERS", 0)
    define(client, daemon, 2)
    wait_until(lambda: len(workers(host)) == 1)
