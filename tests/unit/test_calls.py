"""Which calls are rewritten, and what messages call them."""

from __future__ import annotations

import dataclasses

import pytest

from papr_hook.gateway.calls import REWRITTEN, describe_call, is_rewritten
from papr_hook.gateway.protocol import Procedure, Type, build_packet, string, uint
from papr_hook.gateway.rewrite import REWRITES

GUEST = string(b"g") + bytes(16) + uint(1)


def test_what_is_held_is_what_is_rewritten() -> None:
    """The relay holds the calls that a worker can rewrite, and no others."""
    assert set(REWRITTEN) == set(REWRITES)


@pytest.mark.parametrize("type_", [type_ for type_ in Type if type_ not in (Type.CALL, Type.CALL_WITH_FDS)])
def test_streams_and_replies_pass(type_: Type) -> None:
    """They have the procedure of their call, and are none."""
    assert is_rewritten(build_packet(350, Type.CALL, 1, 0, b""))
    assert not is_rewritten(build_packet(350, type_, 1, 0, b""))


def test_other_programs_pass() -> None:
    """The QEMU program's procedures have the same numbers."""
    assert not is_rewritten(dataclasses.replace(build_packet(8, Type.CALL, 1, 0, b""), program=0x20008087))
    assert not is_rewritten(dataclasses.replace(build_packet(8, Type.CALL, 1, 0, b""), version=2))


@pytest.mark.parametrize(
    ("procedure", "payload", "text"),
    [
        (Procedure.DOMAIN_CREATE, GUEST, "a start of guest 'g'"),
        (Procedure.DOMAIN_ATTACH_DEVICE, GUEST + string(b"<disk/>"), "an attach of guest 'g'"),
        (Procedure.DOMAIN_REVERT_TO_SNAPSHOT, string(b"before") + GUEST, "a snapshot revert of guest 'g'"),
        (Procedure.DOMAIN_DEFINE_XML, string(b"<domain><name>x y</name></domain>"), "a domain XML of guest 'x y'"),
        (Procedure.DOMAIN_DEFINE_XML, string(b"noise"), "a domain XML"),
        (Procedure.DOMAIN_CREATE, b"noise", "a start"),
    ],
)
def test_messages_name_the_guest(procedure: Procedure, payload: bytes, text: str) -> None:
    """As far as the packet tells, which may be nothing."""
    assert describe_call(build_packet(procedure, Type.CALL, 1, 0, payload)) == text
