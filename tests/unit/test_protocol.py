"""The framing: every way in which bytes may arrive, and everything that is no packet."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papr_hook.gateway import protocol
from papr_hook.gateway.protocol import PacketParser, Reader, RemoteProtocolError, Type


def raw(type_: int = 0, payload: bytes = b"", program: int = protocol.PROGRAM, length: int | None = None) -> bytes:
    """A packet's bytes, whatever they say."""
    size = 28 + len(payload) if length is None else length
    return struct.pack(">7I", size, program, 1, 11, type_, 7, 0) + payload


def with_descriptors(count: int, announced: int | None = None, type_: int = Type.CALL_WITH_FDS) -> bytes:
    """A packet's bytes with those that carry its descriptors."""
    return raw(type_, protocol.uint(count if announced is None else announced) + b"args") + bytes(count)


def frames_of(*portions: bytes) -> list[protocol.Packet]:
    """What a framer makes of bytes that arrive in portions."""
    framer = PacketParser()
    found = []
    for portion in portions:
        framer.receive(portion)
        while (packet := framer.next_packet()) is not None:
            found.append(packet)
    return found


SAMPLES = {
    "empty": raw(),
    "call": raw(0, b"payload!"),
    "odd": raw(1, b"123"),
    "keepalive": raw(2, program=0x6B656570),
    "stream": raw(3, b"x" * 1000),
    "unknown type": raw(99, b"what is it"),
    "no descriptor": with_descriptors(0),
    "one descriptor": with_descriptors(1),
    "32 descriptors": with_descriptors(32, type_=Type.REPLY_WITH_FDS),
}
anything = st.lists(st.sampled_from(sorted(SAMPLES.values())), max_size=6)


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_anywhere(name: str) -> None:
    """A packet is the same byte by byte, and in any two parts."""
    data = SAMPLES[name]
    (whole,) = frames_of(data)
    assert data.startswith(whole.data)
    assert len(whole.data) + whole.fds == len(data)
    assert frames_of(*(data[n : n + 1] for n in range(len(data)))) == [whole]
    for cut in range(len(data) + 1):
        assert frames_of(data[:cut], data[cut:]) == [whole]
        assert frames_of(data[:cut]) == ([whole] if cut == len(data) else [])


@given(anything, st.data())
def test_frames_one_after_another(samples: list[bytes], data: st.DataObject) -> None:
    """Packets arrive whole, in order and with nothing lost, however the bytes are cut."""
    stream = b"".join(samples)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    portions = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)])]
    found = frames_of(*portions)
    assert found == frames_of(stream)
    assert b"".join(packet.data + bytes(packet.fds) for packet in found) == stream


@given(anything, st.binary(max_size=200))
def test_trailing_garbage(samples: list[bytes], garbage: bytes) -> None:
    """The packets before garbage are complete; garbage is an error, more packets, or waits for more."""
    stream = b"".join(samples)
    wanted = frames_of(stream)
    framer = PacketParser()
    framer.receive(stream + garbage)
    assert [framer.next_packet() for _ in wanted] == wanted
    try:
        while (packet := framer.next_packet()) is not None:
            assert 28 <= len(packet.data) <= len(garbage)
    except RemoteProtocolError as error:
        # It stays one, whatever comes.
        framer.receive(raw())
        with pytest.raises(RemoteProtocolError, match=f"^{re.escape(str(error))}$"):
            framer.next_packet()


@pytest.mark.parametrize("length", [0, 1, 4, 27, 33_554_437, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_lengths_beyond_the_limits(length: int) -> None:
    """Such a length is refused as soon as it is there, before anything is waited for."""
    framer = PacketParser()
    framer.receive(struct.pack(">I", length)[:3])
    assert framer.next_packet() is None
    framer.receive(struct.pack(">I", length)[3:])
    with pytest.raises(RemoteProtocolError, match="28 to 33554436"):
        framer.next_packet()


@pytest.mark.parametrize("length", [28, 29, 33_554_436])
def test_lengths_at_the_limits(length: int) -> None:
    """The shortest and the longest packet are packets."""
    (packet,) = frames_of(raw(0, bytes(length - 28)))
    assert len(packet.data) == length


@pytest.mark.parametrize("type_", [Type.CALL_WITH_FDS, Type.REPLY_WITH_FDS])
@pytest.mark.parametrize("count", [33, 0x80000000, 0xFFFFFFFF])
def test_too_many_descriptors(type_: int, count: int) -> None:
    """More descriptors than libvirt passes are refused."""
    with pytest.raises(RemoteProtocolError, match=f"{count} file descriptors"):
        frames_of(with_descriptors(0, count, type_))


@pytest.mark.parametrize("payload", [b"", b"\0\0\0"])
def test_descriptors_without_a_number(payload: bytes) -> None:
    """A packet with descriptors has to say how many."""
    with pytest.raises(RemoteProtocolError, match="lacks their number"):
        frames_of(raw(Type.CALL_WITH_FDS, payload))


def test_descriptors_are_counted_as_they_come() -> None:
    """Whoever reads the socket knows how many descriptors belong to the packet that is under way."""
    framer = PacketParser()
    stream = with_descriptors(3)
    framer.receive(stream[:-3])
    for read in range(3):
        assert framer.next_packet() is None
        assert framer.fds_read == read
        framer.receive(b"\0")
    packet = framer.next_packet()
    assert packet is not None
    assert (packet.fds, packet.payload, framer.fds_read) == (3, b"args", 0)


@given(st.integers(0, 6), st.integers(0, 0xFFFFFFFF), st.binary(max_size=100), st.binary(max_size=100))
def test_payloads_are_replaced(type_: int, serial: int, before: bytes, after: bytes) -> None:
    """Only the payload and the length change; the number of descriptors stays."""
    with_fds = type_ in (Type.CALL_WITH_FDS, Type.REPLY_WITH_FDS)
    count = protocol.uint(2) if with_fds else b""
    data = struct.pack(">7I", 28 + len(count + before), protocol.PROGRAM, 1, 350, type_, serial, 0) + count + before
    (packet,) = frames_of(data + (b"\0\0" if with_fds else b""))
    assert packet.payload == before
    assert packet.with_payload(before) == packet
    changed = packet.with_payload(after)
    assert changed.payload == after
    assert frames_of(changed.data + bytes(changed.fds)) == [changed]
    assert changed.data[4 : 28 + len(count)] == packet.data[4 : 28 + len(count)]


@given(st.integers(0, 0xFFFFFFFF), st.binary(max_size=100))
def test_frames_are_built(serial: int, payload: bytes) -> None:
    """A packet that is built is the one that is read."""
    built = protocol.build_packet(14, Type.CALL, serial, 0, payload)
    assert frames_of(built.data) == [built]
    assert (built.procedure, built.serial, built.payload) == (14, serial, payload)


def test_frames_too_long_to_send() -> None:
    """What would be no packet is not built, and it is not the other side's fault."""
    with pytest.raises(protocol.LocalProtocolError):
        protocol.build_packet(1, 0, 1, 0, bytes(33_554_409))
    assert len(protocol.build_packet(1, 0, 1, 0, bytes(33_554_408)).data) == 33_554_436
    with pytest.raises(protocol.LocalProtocolError):
        protocol.string(bytes(protocol.MAX_STRING + 1))


@given(st.binary(max_size=50), st.integers(0, 0xFFFFFFFF), st.binary(max_size=9))
def test_strings_and_numbers(text: bytes, number: int, trailing: bytes) -> None:
    """XDR's strings are padded to words; what follows the arguments is nobody's business."""
    data = protocol.string(text) + protocol.uint(number)
    assert len(data) % 4 == 0
    reader = Reader(data + trailing)
    assert (reader.string(), reader.uint(), reader.at) == (text, number, len(data))


@given(st.text(max_size=20), st.binary(min_size=16, max_size=16), st.integers(-(2**31), 2**31 - 1))
def test_domains(name: str, uuid: bytes, number: int) -> None:
    """A guest is read as it is written, and its bytes are kept."""
    data = protocol.string(name.encode()) + uuid + struct.pack(">i", number)
    domain = Reader(data + b"more").domain()
    assert (domain.name, domain.uuid, domain.raw) == (name, uuid, data)
    for cut in range(len(data)):
        with pytest.raises(RemoteProtocolError, match="too early"):
            Reader(data[:cut]).domain()


def test_strings_beyond_the_limit() -> None:
    """A string's length is not believed."""
    with pytest.raises(RemoteProtocolError, match="4194305"):
        Reader(protocol.uint(protocol.MAX_STRING + 1) + b"abcd").string()


@given(st.text(max_size=40))
def test_errors_to_clients(message: str) -> None:
    """An error reply answers its call, and says what it should."""
    call = protocol.build_packet(160, Type.CALL, 12, 0, b"")
    reply = protocol.error_reply(call, message)
    assert (reply.procedure, reply.serial, reply.type, reply.status) == (160, 12, Type.REPLY, protocol.Status.ERROR)
    assert protocol.error_message(reply) == message.encode("utf-8", "replace").decode()
    # code, domain, message, level, dom, str1-3, int1-2, net: nothing is left over.
    reader = Reader(reply.payload)
    assert (reader.uint(), reader.uint()) == (9, 10)
    assert (reader.uint(), reader.string()) == (1, message.encode("utf-8", "replace"))
    assert (reader.uint(), reader.uint(), reader.uint()) == (2, 0, 1)
    reader.string()
    assert [reader.uint() for _ in range(5)] == [0] * 5
    assert reader.at == len(reply.payload)


@given(st.binary(max_size=300))
def test_noise_is_read_as_anything(noise: bytes) -> None:
    """Whatever a payload holds, reading it ends in values or in the one error."""
    for read in (Reader.string, Reader.domain, Reader.uint):
        try:
            read(Reader(noise))
        except RemoteProtocolError:
            continue
