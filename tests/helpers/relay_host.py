"""The relay in a thread, between clients and a libvirt that a test plays packet by packet."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from papr_hook.config import Config
from papr_hook.gateway.nursery import Nursery
from papr_hook.gateway.protocol import Packet, PacketParser, Procedure, Type, build_packet
from papr_hook.gateway.relay import Relay
from papr_hook.virt.locks import AttachLocks

from .raw_client import receive_packet

SECONDS = 30.0


class Peer:
    """One end of a connection, packet by packet."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(SECONDS)
        self.sock = sock
        self._parser = PacketParser()

    def send(self, procedure: int, payload: bytes = b"", type_: int = Type.CALL, serial: int = 1) -> None:
        """Send a packet."""
        self.sock.sendall(build_packet(procedure, type_, serial, 0, payload).data)

    def next(self) -> Packet:
        """Return the next packet. Raises EOFError."""
        return receive_packet(self.sock, self._parser)

    def ended(self) -> bool:
        """Return whether the other side has closed the connection."""
        with suppress(ConnectionResetError):
            return self.sock.recv(1) == b""
        return True


class RelayHost:
    """A relay in a thread, and libvirt's socket."""

    def __init__(self, directory: Path, uid: int = 0) -> None:
        self.upstream = socket.socket(socket.AF_UNIX)
        self.upstream.bind(str(directory / "upstream"))
        self.upstream.listen()
        self.upstream.settimeout(SECONDS)
        self.nursery = Nursery(Config)
        self.nursery.start()
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        locks = AttachLocks(os.memfd_create("attach.lock"))
        self.relay = Relay(theirs, self.nursery.requests, directory / "upstream", locks, uid)
        self.journal: list[str] = []
        self.relay.log = lambda _, text: self.journal.append(text)  # type: ignore[assignment]
        self.thread = threading.Thread(target=self.relay.run, daemon=True)
        self.thread.start()

    def hand_over(self) -> socket.socket:
        """Give the relay a client, and return the client's end."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.channel, [b"c"], [theirs.fileno()])
        return ours

    def connect(self) -> tuple[Peer, Peer]:
        """Return a new client and libvirt's end of its connection."""
        client = Peer(self.hand_over())
        return client, Peer(self.upstream.accept()[0])

    def open(self) -> tuple[Peer, Peer]:
        """Return a client that libvirt has let in, and libvirt's end."""
        client, daemon = self.connect()
        client.send(Procedure.CONNECT_OPEN)
        daemon.next()
        daemon.send(Procedure.CONNECT_OPEN, type_=Type.REPLY)
        client.next()
        return client, daemon

    def stop(self) -> None:
        """Take no more clients, and wait until the relay has ended."""
        self.channel.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
