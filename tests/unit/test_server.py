"""The main process and those that it starts, with a libvirt that this test plays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from papr_hook.gateway.protocol import PacketParser, Procedure, Reader, Type, build_packet, string
from tests.helpers.domain_xml import at, domain_xml, nic
from tests.helpers.paths import PROJECT
from tests.helpers.polling import wait_until
from tests.helpers.raw_client import RawClient

CROWDED = domain_xml(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1, running=False)


class Daemon:
    """A libvirt that accepts every call, and keeps what was defined."""

    def __init__(self, path: Path) -> None:
        self.defined: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        parser = PacketParser()
        with sock, suppress(ConnectionError):
            while data := sock.recv(65536):
                parser.receive(data)
                while (call := parser.next_packet()) is not None:
                    if call.procedure == Procedure.DOMAIN_DEFINE_XML:
                        self.defined.append(Reader(call.payload).string())
                    sock.sendall(build_packet(call.procedure, Type.REPLY, call.serial, 0, b"").data)


class Gateway:
    """The processes of a gateway."""

    def __init__(self, directory: Path) -> None:
        (directory / "upstream").mkdir()
        self.daemon = Daemon(directory / "upstream" / "sock")
        self.path = directory / "sock"
        conf = directory / "conf"
        conf.write_text(f"[papr-hook]\nlibvirt_run_dir = {directory}\n")
        command = [sys.executable, "-m", "papr_hook", "gateway", "serve", "--listen", str(self.path)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        self.process = subprocess.Popen([*command, "--conf", str(conf)], env=environment)
        wait_until(self.path.exists)

    def children(self, name: str) -> list[int]:
        """Return the main process's children of a kind."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.process.pid and (entry / "comm").read_text().strip() == name:
                    found.append(int(entry.name))
        return found

    def connect(self, stack: ExitStack) -> RawClient:
        """Return a client that is let in."""
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(60)
        sock.connect(str(self.path))
        client = RawClient(sock)
        client.open()
        return client

    def define(self, client: RawClient) -> bytes:
        """Define a guest, and return what libvirt got."""
        client.client.sendall(RawClient.packet(Procedure.DOMAIN_DEFINE_XML, string(CROWDED)))
        assert client.next().status == 0
        return self.daemon.defined.pop()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway."""
    one = Gateway(tmp_path)
    yield one
    one.process.kill()
    one.process.wait()
    one.daemon.close()


def test_one_relay_for_one_identity(gateway: Gateway) -> None:
    """All clients of this user share a relay, and get their layouts from workers."""
    with ExitStack() as stack:
        clients = [gateway.connect(stack) for _ in range(20)]
        assert len(gateway.children("papr-relay")) == 1
        assert gateway.define(clients[0]).count(b"pci-root") > 4


def test_more_clients_than_a_channel_takes(gateway: Gateway) -> None:
    """They wait for their relay, as they would wait for libvirt."""
    with ExitStack() as stack:
        gateway.connect(stack)
        (relay,) = gateway.children("papr-relay")
        os.kill(relay, signal.SIGSTOP)
        sockets = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(450)]
        for sock in sockets:
            sock.connect(str(gateway.path))
        os.kill(relay, signal.SIGCONT)
        for sock in sockets:
            sock.settimeout(60)
            RawClient(sock).open()


def test_the_main_process_loads_no_xml_library(gateway: Gateway) -> None:
    """Nor does a relay: only the nursery and its workers have it."""
    with ExitStack() as stack:
        gateway.define(gateway.connect(stack))
        loaded = {
            pid: "lxml" in Path(f"/proc/{pid}/maps").read_text()
            for pid in (gateway.process.pid, *gateway.children("papr-relay"), *gateway.children("papr-nursery"))
        }
        assert list(loaded.values()) == [False, False, True]


def test_a_relay_that_is_killed(gateway: Gateway) -> None:
    """Its clients are cut off, and the next client gets another one."""
    with ExitStack() as stack:
        first = gateway.connect(stack)
        (relay,) = gateway.children("papr-relay")
        os.kill(relay, signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionResetError)):
            first.next()
        gateway.define(gateway.connect(stack))
        assert gateway.children("papr-relay") != [relay]


def test_a_nursery_that_is_killed(gateway: Gateway) -> None:
    """It is started again, for the relays that there are."""
    with ExitStack() as stack:
        client = gateway.connect(stack)
        gateway.define(client)
        (nursery,) = gateway.children("papr-nursery")
        os.kill(nursery, signal.SIGKILL)
        wait_until(lambda: gateway.children("papr-nursery") not in ([], [nursery]))
        assert gateway.define(client).count(b"pci-root") > 4


def test_a_main_process_that_is_killed(gateway: Gateway) -> None:
    """Those who are served stay served, layouts and all."""
    with ExitStack() as stack:
        client = gateway.connect(stack)
        gateway.process.kill()
        gateway.process.wait()
        assert gateway.define(client).count(b"pci-root") > 4
