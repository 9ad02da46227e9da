"""The calls that the gateway rewrites, for code that must not load what rewrites them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from .procedures import NAMES, Action, find_action
from .protocol import PROGRAM, VERSION, Packet, ProtocolError, Reader, Type

REWRITTEN: Mapping[int, Action] = MappingProxyType(
    {
        number: find_action(name)
        for number, name in enumerate(NAMES, 1)
        if find_action(name) not in (Action.KEEP_STATE, Action.IGNORE)
    }
)
"""What is done with each of them, by the number of its procedure."""

_SNAPSHOT_CALLS = (Action.REVERT, Action.DELETE)

CALL_TYPES = frozenset({Type.CALL, Type.CALL_WITH_FDS})
"""Streams reuse the procedure of their call, so the type decides."""

_NAME = re.compile(rb"<name>([^<]{1,255})</name>")


def is_rewritten(packet: Packet) -> bool:
    """Return whether a client's packet is a call that the gateway may rewrite."""
    return (
        packet.procedure in REWRITTEN
        and packet.program == PROGRAM
        and packet.version == VERSION
        and packet.type in CALL_TYPES
    )


def describe_call(packet: Packet) -> str:
    """Return what a message calls a rewritten call and its guest, as far as the packet tells.

    The name in domain XML is only searched for, because nothing may parse a client's XML in this process.
    """
    action = REWRITTEN.get(packet.procedure, Action.IGNORE)
    name = _search_name(packet.data) if action is Action.LAY_OUT else _read_name(packet.payload, action)
    return action.noun if name is None else f"{action.noun} of guest '{name}'"


def _search_name(data: bytes) -> str | None:
    found = _NAME.search(data)
    return found.group(1).decode("utf-8", "replace") if found else None


def _read_name(payload: bytes, action: Action) -> str | None:
    """Return the name in the call's remote_nonnull_domain, which follows the name of a snapshot."""
    reader = Reader(payload)
    try:
        if action in _SNAPSHOT_CALLS:
            reader.string()
        return reader.domain().name
    except ProtocolError:
        return None
