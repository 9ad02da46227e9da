"""What the relay and a worker send each other: packets of libvirt's own form.

The relay sends the call that is to be rewritten, and the replies to the worker's questions, as libvirt wrote them. The
worker's questions are calls of libvirt's program. Everything else is a message of a program of their own.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from .protocol import HEADER, Packet, Type

WORKER_PROGRAM = 0x70617072
"""No program of libvirt's has this number."""


STAYS = 1
"""The status of an answer whose worker takes another call of the same relay. Otherwise it is 0."""


class Message(IntEnum):
    """The messages, by the number that a packet has for a procedure.

    LOG: A line for the journal; the status of the packet is its syslog priority.
    LOCK: From the worker: acquire the attach lock of the guest with this UUID. From the relay: it is acquired.
    DONE: The payload that is to be sent to libvirt.
    DONE_IN_TWO: The number and the payload (a string) of each of two procedures, to be called in place of the client's
        call.
    REFUSED: Fail the call, with this text.
    FAILED: Forward the call unmodified, for this reason.
    """

    LOG = 1
    LOCK = 2
    DONE = 3
    REFUSED = 4
    FAILED = 5
    DONE_IN_TWO = 6


_ANSWERS = frozenset({Message.DONE, Message.DONE_IN_TWO, Message.REFUSED})


def build_message(message: Message, payload: bytes = b"", status: int = 0) -> Packet:
    """Return a message as a packet."""
    data = struct.pack(">7I", HEADER.size + len(payload), WORKER_PROGRAM, 1, message, Type.MESSAGE, 0, status)
    return Packet(WORKER_PROGRAM, 1, message, Type.MESSAGE, 0, status, data + payload)


def takes_another(packet: Packet) -> bool:
    """Return whether a packet of a worker ends its call, and says that it takes another one."""
    return packet.program == WORKER_PROGRAM and packet.procedure in _ANSWERS and packet.status == STAYS
