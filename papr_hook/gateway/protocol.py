"""libvirt's RPC protocol without I/O: bytes in, packets out, and the XDR of the few messages of interest.

Source: libvirt's docs/kbase/internals/rpc.rst, src/rpc/virnetprotocol.x and src/remote/remote_protocol.x, which are
the same in 9.0.0 and 11.3.0. A packet is a length that counts itself, a header of six words, and a payload, all in
big-endian XDR. The payload of a packet with file descriptors starts with their number. That many messages of one byte,
each with one descriptor, follow the packet and are not counted in its length. SASL does not change the framing on a
Unix socket, because libvirt requests no encryption there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

PROGRAM = 0x20008086
"""REMOTE_PROGRAM in libvirt's src/remote/remote_protocol.x."""

VERSION = 1
"""REMOTE_PROTOCOL_VERSION, same file."""

WORD = 4
"""Bytes of an XDR unsigned int, to which everything else is padded (RFC 4506)."""

HEADER = struct.Struct(">7I")
"""The length, and the program, version, procedure, type, serial and status of virNetMessageHeader."""

MIN_PACKET = HEADER.size

MAX_PACKET = 4 + 33_554_432
"""Bytes of the longest packet: VIR_NET_MESSAGE_LEN_MAX and VIR_NET_MESSAGE_MAX in src/rpc/virnetprotocol.x."""

MAX_STRING = 4_194_304
"""VIR_NET_MESSAGE_STRING_MAX, same file; REMOTE_STRING_MAX is the same number."""

MAX_FDS = 32
"""VIR_NET_MESSAGE_NUM_FDS_MAX, same file."""

UUID_BYTES = 16
"""VIR_UUID_BUFLEN in libvirt's include/libvirt/libvirt-host.h."""

MAX_SASL_DATA = 65_536
"""REMOTE_AUTH_SASL_DATA_MAX in src/remote/remote_protocol.x."""


class Procedure(IntEnum):
    """The procedures that the gateway acts on or calls: REMOTE_PROC_… in libvirt's src/remote/remote_protocol.x."""

    CONNECT_OPEN = 1
    DOMAIN_ATTACH_DEVICE = 8
    DOMAIN_CREATE = 9
    DOMAIN_CREATE_XML = 10
    DOMAIN_DEFINE_XML = 11
    DOMAIN_GET_XML_DESC = 14
    DOMAIN_SET_AUTOSTART = 29
    NETWORK_GET_XML_DESC = 43
    NETWORK_LOOKUP_BY_NAME = 46
    CONNECT_DOMAIN_XML_TO_NATIVE = 136
    DOMAIN_IS_ACTIVE = 150
    DOMAIN_IS_PERSISTENT = 151
    DOMAIN_ATTACH_DEVICE_FLAGS = 160
    DOMAIN_UPDATE_DEVICE_FLAGS = 174
    DOMAIN_HAS_MANAGED_SAVE_IMAGE = 183
    DOMAIN_SNAPSHOT_GET_XML_DESC = 186
    DOMAIN_REVERT_TO_SNAPSHOT = 192
    DOMAIN_SNAPSHOT_DELETE = 193
    DOMAIN_CREATE_WITH_FLAGS = 196
    DOMAIN_CREATE_XML_WITH_FILES = 309
    DOMAIN_CREATE_WITH_FILES = 310
    DOMAIN_DEFINE_XML_FLAGS = 350
    DOMAIN_SET_AUTOSTART_ONCE = 450


class Type(IntEnum):
    """Packet types: virNetMessageType. Unknown types are forwarded unchanged."""

    CALL = 0
    REPLY = 1
    MESSAGE = 2
    STREAM = 3
    CALL_WITH_FDS = 4
    REPLY_WITH_FDS = 5
    STREAM_HOLE = 6


FDS_TYPES = frozenset({int(Type.CALL_WITH_FDS), int(Type.REPLY_WITH_FDS)})
"""Types of packets that file descriptors follow."""

REPLY_TYPES = frozenset({int(Type.REPLY), int(Type.REPLY_WITH_FDS)})


class Status(IntEnum):
    """Results of a call: virNetMessageStatus."""

    OK = 0
    ERROR = 1
    CONTINUE = 2


class ProtocolError(Exception):
    """Data that violates the protocol."""


class RemoteProtocolError(ProtocolError):
    """The peer sent malformed data; packet boundaries are lost."""


class LocalProtocolError(ProtocolError):
    """This program was asked to build an invalid packet."""


@dataclass(frozen=True)
class Packet:
    """One packet.

    Attributes:
        data: All of its bytes, length and header included, but not those that carry file descriptors.
        fds: The number of file descriptors that follow it.
    """

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int
    data: bytes
    fds: int = 0

    @property
    def payload(self) -> bytes:
        """The arguments of a call, or the return values of a reply."""
        return self.data[self._payload_start :]

    @property
    def _payload_start(self) -> int:
        return HEADER.size + (WORD if _carries_fds(self.type) else 0)

    def with_payload(self, payload: bytes) -> Packet:
        """Return the same packet with another payload.

        Raises:
            LocalProtocolError: The packet would be longer than libvirt accepts.
        """
        data = self.data[WORD : self._payload_start] + payload
        return replace(self, data=_length(data) + data)


@dataclass(frozen=True)
class PacketWithFds:
    """A packet and the open file descriptors that follow it."""

    packet: Packet
    fds: Sequence[int] = ()


def build_packet(procedure: int, type_: int, serial: int, status: int, payload: bytes) -> Packet:
    """Return a packet of libvirt's main program, without file descriptors.

    Raises:
        LocalProtocolError: The packet would be longer than libvirt accepts.
    """
    data = struct.pack(">6I", PROGRAM, VERSION, procedure, type_, serial, status) + payload
    return Packet(PROGRAM, VERSION, procedure, type_, serial, status, _length(data) + data)


def _length(data: bytes) -> bytes:
    if WORD + len(data) > MAX_PACKET:
        raise LocalProtocolError(f"packet of {WORD + len(data)} bytes exceeds the limit of {MAX_PACKET}")
    return struct.pack(">I", WORD + len(data))


def _carries_fds(type_: int) -> bool:
    return type_ in FDS_TYPES


class PacketParser:
    """Splits one direction of a connection into packets, whatever portions its bytes arrive in.

    Attributes:
        limit: The longest packet to accept, in bytes.
        fds_read: How many of the one-byte messages that carry file descriptors were read for the packet that is not
            complete yet. The reader of the socket keeps the descriptors themselves, in order.
    """

    def __init__(self, limit: int = MAX_PACKET) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._waiting: Packet | None = None
        self._whole: Packet | None = None
        self.fds_read = 0

    @property
    def is_empty(self) -> bool:
        """Whether every byte was returned in a packet."""
        return not (self._buffer or self._waiting or self._whole)

    def receive(self, data: bytes | memoryview) -> None:
        """Take data that was read from the socket. It is copied."""
        if self._buffer or self._waiting or self._whole or not self._take_whole(data):
            self._buffer += data

    def _take_whole(self, data: bytes | memoryview) -> bool:
        """Take data that is one packet, as it is most of the time, and return whether it is."""
        if not MIN_PACKET <= len(data) <= self.limit:
            return False
        length, program, version, procedure, type_, serial, status = HEADER.unpack_from(data)
        if length != len(data) or _carries_fds(type_):
            return False
        self._whole = Packet(program, version, procedure, type_, serial, status, bytes(data))
        return True

    def next_packet(self) -> Packet | None:
        """Return the next packet, or None if it is not complete yet.

        Raises:
            RemoteProtocolError: The input is malformed. Every later call raises it again.
        """
        if self._whole is not None:
            packet, self._whole = self._whole, None
            return packet
        if self._waiting is None:
            self._waiting = self._parse()
        if self._waiting is None:
            return None
        taken = min(self._waiting.fds - self.fds_read, len(self._buffer))
        del self._buffer[:taken]
        self.fds_read += taken
        if self.fds_read < self._waiting.fds:
            return None
        complete, self._waiting, self.fds_read = self._waiting, None, 0
        return complete

    def _parse(self) -> Packet | None:
        if len(self._buffer) < WORD:
            return None
        length = int.from_bytes(self._buffer[:WORD], "big")
        if not MIN_PACKET <= length <= self.limit:
            raise RemoteProtocolError(f"packet of {length} bytes; valid lengths: {MIN_PACKET} to {self.limit}")
        if len(self._buffer) < length:
            return None
        _, program, version, procedure, type_, serial, status = HEADER.unpack_from(self._buffer)
        fds = self._announced_fds(type_, length)
        data = bytes(memoryview(self._buffer)[:length])
        del self._buffer[:length]
        return Packet(program, version, procedure, type_, serial, status, data, fds)

    def _announced_fds(self, type_: int, length: int) -> int:
        if not _carries_fds(type_):
            return 0
        if length < HEADER.size + WORD:
            raise RemoteProtocolError("packet with file descriptors lacks their number")
        count = int.from_bytes(self._buffer[HEADER.size : HEADER.size + WORD], "big")
        if count > MAX_FDS:
            raise RemoteProtocolError(f"packet with {count} file descriptors exceeds the limit of {MAX_FDS}")
        return count


class Reader:
    """Reads the XDR values of a payload in order.

    Attributes:
        at: The offset of the next value, in bytes.
    """

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0

    def raw(self, size: int) -> bytes:
        """Read bytes as they are.

        Raises:
            RemoteProtocolError: The payload ends before.
        """
        if len(self.payload) - self.at < size:
            raise RemoteProtocolError("payload ends too early")
        self.at += size
        return self.payload[self.at - size : self.at]

    def uint(self) -> int:
        """Read an XDR unsigned int."""
        return int.from_bytes(self.raw(WORD), "big")

    def string(self) -> bytes:
        """Read an XDR string."""
        size = self.uint()
        if size > MAX_STRING:
            raise RemoteProtocolError(f"string of {size} bytes exceeds the limit of {MAX_STRING}")
        text = self.raw(size)
        self.raw(-size % WORD)
        return text

    def domain(self) -> DomainRef:
        """Read a remote_nonnull_domain."""
        start = self.at
        name, uuid = self.string(), self.raw(UUID_BYTES)
        self.raw(WORD)  # the id, -1 if the domain is shut off
        return DomainRef(name.decode("utf-8", "replace"), uuid, self.payload[start : self.at])


_NO_ID = struct.pack(">i", -1)
"""The id of a guest that does not run."""


@dataclass(frozen=True)
class DomainRef:
    """A domain as a call refers to it: remote_nonnull_domain.

    Attributes:
        raw: The XDR bytes, for use in other calls.
    """

    name: str
    uuid: bytes
    raw: bytes

    @classmethod
    def of(cls, name: str, uuid: bytes) -> DomainRef:
        """Return a reference to a guest. libvirt finds it by the UUID (qemuDomainObjFromDomain in its src/qemu)."""
        return cls(name, uuid, string(name.encode()) + uuid + _NO_ID)


def uint(value: int) -> bytes:
    """Return an XDR unsigned int."""
    return struct.pack(">I", value)


def string(text: bytes) -> bytes:
    """Return an XDR string.

    Raises:
        LocalProtocolError: The string is longer than libvirt accepts.
    """
    if len(text) > MAX_STRING:
        raise LocalProtocolError(f"string of {len(text)} bytes exceeds the limit of {MAX_STRING}")
    return uint(len(text)) + text + bytes(-len(text) % WORD)


OPERATION_FAILED = 9
"""VIR_ERR_OPERATION_FAILED in libvirt's include/libvirt/virterror.h."""

FROM_QEMU = 10
"""VIR_FROM_QEMU, same file."""

LEVEL_ERROR = 2
"""VIR_ERR_ERROR, same file."""


def build_reply(call: Packet, reply: Packet) -> Packet:
    """Return the reply to a call that another one was made for: its result, or its error, without its payload."""
    payload = reply.payload if reply.status == Status.ERROR else b""
    return build_packet(call.procedure, Type.REPLY, call.serial, reply.status, payload)


def error_reply(call: Packet, message: str) -> Packet:
    """Return a reply that makes a call fail with a message, as an error of libvirt's QEMU driver (remote_error)."""
    text = uint(1) + string(message.encode("utf-8", "replace"))
    null = uint(0)
    # code, domain, message, level, dom, str1, str2, str3, int1, int2, net
    payload = uint(OPERATION_FAILED) + uint(FROM_QEMU) + text + uint(LEVEL_ERROR) + null + text + null * 5
    return build_packet(call.procedure, Type.REPLY, call.serial, Status.ERROR, payload)


def error_message(reply: Packet) -> str:
    """Return the message of an error reply.

    Raises:
        RemoteProtocolError: The reply is malformed.
    """
    reader = Reader(reply.payload)
    reader.raw(2 * WORD)
    text = reader.string() if reader.uint() else b"no message"
    return text.decode("utf-8", "replace")
