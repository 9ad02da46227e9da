"""Which packets a worker rewrites: the same ones that a relay holds."""

from __future__ import annotations

import dataclasses

import pytest

from papr_hook.config import Config
from papr_hook.gateway.calls import REWRITTEN, is_rewritten
from papr_hook.gateway.protocol import Packet, Procedure, Type, build_packet, string
from papr_hook.gateway.rewrite import REWRITES, start_rewrite
from tests.helpers.domain_xml import domain_xml

CALL = build_packet(Procedure.DOMAIN_DEFINE_XML, Type.CALL, 1, 0, string(domain_xml(running=False)))


def test_every_call_that_is_held_has_a_rewrite() -> None:
    """Otherwise a client would wait for nothing, or a call would pass."""
    assert set(REWRITES) == set(REWRITTEN)


@pytest.mark.parametrize(
    ("packet", "rewritten"),
    [
        (CALL, True),
        (dataclasses.replace(CALL, type=Type.CALL_WITH_FDS), True),
        (dataclasses.replace(CALL, program=0x20008087), False),  # that of qemu's own calls
        (dataclasses.replace(CALL, version=2), False),
        (dataclasses.replace(CALL, type=Type.STREAM), False),
        (dataclasses.replace(CALL, procedure=Procedure.DOMAIN_GET_XML_DESC), False),
    ],
)
def test_relay_and_worker_agree(packet: Packet, rewritten: bool) -> None:
    """A stream has the procedure of its call, and other programs have procedures of the same numbers."""
    assert is_rewritten(packet) is rewritten
    assert (start_rewrite(packet, Config, lambda priority, text: None) is not None) is rewritten
