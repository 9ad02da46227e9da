"""libvirt's RPC protocol without I/O: bytes in, frames out, and the XDR of the few messages of interest.

From libvirt's src/rpc/virnetprotocol.x and src/remote/remote_protocol.x, which are the same in 9.0.0 and 11.3.0. A
frame is a length that counts itself, a header of six words, and a payload, all in big-endian XDR. A frame that carries
file descriptors starts its payload with their number; that many messages of one byte, each with one descriptor, follow
the frame outside of its length. SASL changes none of that on a Unix socket: libvirt asks it for no encryption there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

PROGRAM = 0x20008086
VERSION = 1
WORD = 4
HEADER = struct.Struct(">7I")
"""The length and the header."""
MIN_LENGTH = HEADER.size
MAX_LENGTH = 4 + 33_554_432
MAX_STRING = 4_194_304
MAX_DESCRIPTORS = 32
UUID_BYTES = 16


class Type(IntEnum):
    """The types of frames; any other number is passed on like these."""

    CALL = 0
    REPLY = 1
    MESSAGE = 2
    STREAM = 3
    CALL_WITH_FDS = 4
    REPLY_WITH_FDS = 5
    STREAM_HOLE = 6


class Status(IntEnum):
    """What became of a call."""

    OK = 0
    ERROR = 1
    CONTINUE = 2


class ProtocolError(Exception):
    """Bytes that are not what the protocol says."""


class RemoteProtocolError(ProtocolError):
    """The other side sent them; what it sent after them cannot be told apart any more."""


class LocalProtocolError(ProtocolError):
    """This program was about to send them."""


@dataclass(frozen=True)
class Frame:
    """One frame: what its header says, and its bytes as they travel.

    data: the whole frame, length and header included; descriptors: how many follow it.
    """

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int
    data: bytes
    descriptors: int = 0

    @property
    def payload(self) -> bytes:
        """The arguments of a call, or what a reply returns."""
        return self.data[self._payload_at :]

    @property
    def _payload_at(self) -> int:
        return HEADER.size + (WORD if _has_descriptors(self.type) else 0)

    def with_payload(self, payload: bytes) -> Frame:
        """The same frame with another payload. Raises LocalProtocolError when that is too long for one."""
        data = self.data[WORD : self._payload_at] + payload
        return replace(self, data=_length(data) + data)


def frame(procedure: int, type_: int, serial: int, status: int, payload: bytes) -> Frame:
    """A frame of libvirt's main program without descriptors. Raises LocalProtocolError when it is too long."""
    data = struct.pack(">6I", PROGRAM, VERSION, procedure, type_, serial, status) + payload
    return Frame(PROGRAM, VERSION, procedure, type_, serial, status, _length(data) + data)


def _length(data: bytes) -> bytes:
    if WORD + len(data) > MAX_LENGTH:
        raise LocalProtocolError(f"a frame of {WORD + len(data)} bytes; {MAX_LENGTH} are allowed")
    return struct.pack(">I", WORD + len(data))


def _has_descriptors(type_: int) -> bool:
    return type_ in (Type.CALL_WITH_FDS, Type.REPLY_WITH_FDS)


class Framer:
    """One direction of a connection: gets bytes in any portions, gives frames.

    limit: the longest frame to take, in bytes. The bytes that come along with descriptors are taken out;
    descriptors_read: how many of them belong to a frame that is not complete yet. Whoever reads the socket keeps the
    descriptors themselves in their order.
    """

    def __init__(self, limit: int = MAX_LENGTH) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._waiting: Frame | None = None
        self.descriptors_read = 0

    def receive(self, data: bytes) -> None:
        """Take what was read from a socket."""
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next complete frame; None until there are more bytes.

        Raises RemoteProtocolError for what is no frame; then, and from then on.
        """
        if self._waiting is None:
            self._waiting = self._frame()
        if self._waiting is None:
            return None
        taken = min(self._waiting.descriptors - self.descriptors_read, len(self._buffer))
        del self._buffer[:taken]
        self.descriptors_read += taken
        if self.descriptors_read < self._waiting.descriptors:
            return None
        complete, self._waiting, self.descriptors_read = self._waiting, None, 0
        return complete

    def _frame(self) -> Frame | None:
        if len(self._buffer) < WORD:
            return None
        length = int.from_bytes(self._buffer[:WORD], "big")
        if not MIN_LENGTH <= length <= self.limit:
            raise RemoteProtocolError(f"a frame of {length} bytes; {MIN_LENGTH} to {self.limit} are allowed")
        if len(self._buffer) < length:
            return None
        _, program, version, procedure, type_, serial, status = HEADER.unpack_from(self._buffer)
        descriptors = self._descriptors(type_, length)
        data = bytes(memoryview(self._buffer)[:length])
        del self._buffer[:length]
        return Frame(program, version, procedure, type_, serial, status, data, descriptors)

    def _descriptors(self, type_: int, length: int) -> int:
        if not _has_descriptors(type_):
            return 0
        if length < HEADER.size + WORD:
            raise RemoteProtocolError("a frame with descriptors that does not say how many")
        count = int.from_bytes(self._buffer[HEADER.size : HEADER.size + WORD], "big")
        if count > MAX_DESCRIPTORS:
            raise RemoteProtocolError(f"a frame with {count} descriptors; {MAX_DESCRIPTORS} are allowed")
        return count


class Reader:
    """Reads a payload from its start; at: how far it got. Raises RemoteProtocolError where it ends early."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0

    def raw(self, size: int) -> bytes:
        """The next bytes as they are."""
        if len(self.payload) - self.at < size:
            raise RemoteProtocolError("a payload that ends too early")
        self.at += size
        return self.payload[self.at - size : self.at]

    def uint(self) -> int:
        """A word without a sign."""
        return int.from_bytes(self.raw(WORD), "big")

    def string(self) -> bytes:
        """A string's bytes."""
        size = self.uint()
        if size > MAX_STRING:
            raise RemoteProtocolError(f"a string of {size} bytes; {MAX_STRING} are allowed")
        text = self.raw(size)
        self.raw(-size % WORD)
        return text

    def domain(self) -> Domain:
        """A remote_nonnull_domain."""
        start = self.at
        name, uuid = self.string(), self.raw(UUID_BYTES)
        self.raw(WORD)  # the id, -1 when it does not run
        return Domain(name.decode("utf-8", "replace"), uuid, self.payload[start : self.at])


@dataclass(frozen=True)
class Domain:
    """A guest as a call names it; raw: in the very bytes."""

    name: str
    uuid: bytes
    raw: bytes


def uint(value: int) -> bytes:
    """A word without a sign."""
    return struct.pack(">I", value)


def string(text: bytes) -> bytes:
    """A string. Raises LocalProtocolError when it is longer than libvirt takes."""
    if len(text) > MAX_STRING:
        raise LocalProtocolError(f"a string of {len(text)} bytes; {MAX_STRING} are allowed")
    return uint(len(text)) + text + bytes(-len(text) % WORD)


OPERATION_FAILED = 9  # VIR_ERR_OPERATION_FAILED
FROM_QEMU = 10  # VIR_FROM_QEMU
LEVEL_ERROR = 2  # VIR_ERR_ERROR


def error_reply(call: Frame, message: str) -> Frame:
    """The reply that makes a call fail in its client, with a message, as one of libvirt's QEMU driver."""
    text = uint(1) + string(message.encode("utf-8", "replace"))
    nothing = uint(0)
    # code, domain, message, level, dom, str1, str2, str3, int1, int2, net
    payload = uint(OPERATION_FAILED) + uint(FROM_QEMU) + text + uint(LEVEL_ERROR) + nothing + text + nothing * 5
    return frame(call.procedure, Type.REPLY, call.serial, Status.ERROR, payload)


def error_message(reply: Frame) -> str:
    """What a reply says of the call's failure. Raises RemoteProtocolError."""
    reader = Reader(reply.payload)
    reader.raw(2 * WORD)
    text = reader.string() if reader.uint() else b"no message"
    return text.decode("utf-8", "replace")
