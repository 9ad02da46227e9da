"""Speak libvirt's RPC protocol over a socket, packet by packet."""

from __future__ import annotations

import socket
import struct

from papr_hook.gateway import protocol

KEEPALIVE = 0x6B656570
PING, PONG = 1, 2
"""Program and procedures of libvirt's keepalive (src/rpc/virkeepaliveprotocol.x)."""


def receive_packet(sock: socket.socket, parser: protocol.PacketParser) -> protocol.Packet:
    """Return the next packet that comes. Raises EOFError."""
    while (packet := parser.next_packet()) is None:
        data = sock.recv(65536)
        if not data:
            raise EOFError
        parser.receive(data)
    return packet


class RawClient:
    """A client that speaks the protocol itself."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self._framer = protocol.PacketParser()

    def open(self) -> None:
        """Do what every client does first."""
        self.client.sendall(protocol.build_packet(66, protocol.Type.CALL, 0, 0, b"").data)
        assert self.next().status == 0
        name = protocol.uint(1) + protocol.string(b"qemu:///system") + protocol.uint(0)
        self.client.sendall(protocol.build_packet(1, protocol.Type.CALL, 1, 0, name).data)
        assert self.next().status == 0

    @staticmethod
    def packet(procedure: int, payload: bytes = b"", serial: int = 2) -> bytes:
        """Return a call's bytes."""
        return protocol.build_packet(procedure, protocol.Type.CALL, serial, 0, payload).data

    def next(self) -> protocol.Packet:
        """The next packet that comes. Raises EOFError."""
        return receive_packet(self.client, self._framer)

    def ping(self) -> bytes:
        """A keepalive request."""
        return struct.pack(">7I", 28, KEEPALIVE, 1, PING, protocol.Type.MESSAGE, 0, 0)
