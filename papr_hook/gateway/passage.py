"""Which packets pass as they are: nearly all. They need no object and no copy."""

from __future__ import annotations

from . import protocol
from .calls import REWRITTEN
from .protocol import FDS_TYPES, HEADER, MIN_PACKET, PROGRAM, REPLY_TYPES, Procedure
from .session import FIRST_SERIAL

_unpack = HEADER.unpack_from
_AWAITED = frozenset({*REWRITTEN, Procedure.CONNECT_OPEN})


def measure_from_client(data: memoryview, size: int, limit: int, opened: bool, whole: bool) -> int:
    """Return how many bytes the packets have that a client sent and its session would pass on unchanged.

    That is more than what was received if the last of them is not complete yet.

    Args:
        data: What was received, from the start of a packet.
        size: Its bytes.
        limit: The longest packet that the client may send. A longer one is not counted, as is one with descriptors.
        opened: Whether libvirt has let the client in. Before that, every packet passes.
        whole: Whether only complete packets count.
    """
    passed = 0
    while size - passed >= MIN_PACKET:
        length, _, _, procedure, type_, serial, _ = _unpack(data, passed)
        if not MIN_PACKET <= length <= limit or type_ in FDS_TYPES or (whole and length > size - passed):
            break
        if opened and (procedure in REWRITTEN or serial >= FIRST_SERIAL):
            break
        passed += length
    return passed


def measure_from_daemon(data: memoryview, size: int) -> int:
    """Return how many bytes the packets have that libvirt sent and the session would pass on unchanged.

    That is more than what was received if the last of them is not complete yet.

    Args:
        data: What was received, from the start of a packet.
        size: Its bytes.
    """
    passed = 0
    while size - passed >= MIN_PACKET:
        length, program, _, procedure, type_, serial, _ = _unpack(data, passed)
        if not MIN_PACKET <= length <= protocol.MAX_PACKET or type_ in FDS_TYPES:
            break
        if type_ in REPLY_TYPES and program == PROGRAM and (procedure in _AWAITED or serial >= FIRST_SERIAL):
            break
        passed += length
    return passed
