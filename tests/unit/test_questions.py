"""What a rewrite asks libvirt, and what it makes of a refusal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from papr_hook.gateway.protocol import Procedure, Reader, string, uint
from papr_hook.gateway.questions import ask_domain_xml, ask_hostdev_networks, ask_previous_xmls
from papr_hook.gateway.steps import Call, LockRequest, Steps, UpstreamError
from tests.helpers.fake_libvirt import GUEST, RUNNING_GUEST, UUID

Answer = Callable[[Call], bytes]
NETWORKS = {
    b"vfs": "<network><name>vfs</name><forward mode='hostdev'/></network>",
    b"nat": "<network><name>nat</name><forward mode='nat'/></network>",
}


def ask(steps: Steps[object], answer: Answer) -> object:
    """Have libvirt answer the questions, and return what was made of that."""
    try:
        need = next(steps)
        while True:
            assert not isinstance(need, LockRequest)
            try:
                reply = answer(need)
            except UpstreamError as error:
                need = steps.throw(error)
            else:
                need = steps.send(reply)
    except StopIteration as end:
        return end.value


def refuse(call: Call) -> bytes:
    """Refuse everything."""
    raise UpstreamError("access denied")


def network(call: Call) -> bytes:
    """Answer what is asked about networks; one is not there."""
    name = Reader(call.payload).string()
    if name not in NETWORKS:
        raise UpstreamError("no such network")
    xml = call.procedure == Procedure.NETWORK_GET_XML_DESC
    return string(NETWORKS[name].encode()) if xml else string(name) + bytes(16)


def test_networks_that_hand_out_host_devices() -> None:
    """A network that is not there is left to libvirt, which judges the client's own call."""
    assert ask(ask_hostdev_networks(frozenset({"vfs", "nat", "gone"})), network) == {"vfs"}
    assert ask(ask_hostdev_networks(frozenset({"vfs"})), refuse) == frozenset()


@pytest.mark.parametrize(("guest", "flags"), [(GUEST, [2]), (RUNNING_GUEST, [2, 0])])
def test_the_places_of_a_guest(guest: bytes, flags: list[int]) -> None:
    """The domain XML of the next start comes first. None is asked for with its passwords."""
    calls: list[Call] = []

    def answer(call: Call) -> bytes:
        calls.append(call)
        return guest if call.procedure == Procedure.DOMAIN_LOOKUP_BY_UUID else string(b"<domain/>")

    assert ask(ask_previous_xmls(UUID), answer) == (b"<domain/>",) * len(flags)
    assert [call.payload for call in calls[1:]] == [guest + uint(flag) for flag in flags]
    assert ask(ask_previous_xmls(UUID), refuse) == ()


def test_a_refusal() -> None:
    """Where a rewrite needs the answer, the refusal ends it."""
    with pytest.raises(UpstreamError, match="access denied"):
        ask(ask_domain_xml(Reader(GUEST).domain(), 0), refuse)
