"""What a rewrite asks libvirt, and what it makes of a refusal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from papr_hook.gateway.protocol import DomainRef, Procedure, Reader, string, uint
from papr_hook.gateway.questions import ask_domain_xml, ask_hostdev_networks, ask_previous_xmls
from papr_hook.gateway.steps import Call, LockRequest, Steps, UpstreamError
from tests.helpers.fake_libvirt import GUEST, UUID

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


def test_the_places_of_a_guest() -> None:
    """The domain XML of the next start comes first. None is asked for with its passwords."""
    xmls = {0: b"<domain id='7'/>", 2: b"<domain/>"}
    calls: list[bytes] = []

    def answer(call: Call) -> bytes:
        calls.append(call.payload)
        flags = int.from_bytes(call.payload[-4:], "big")
        if flags not in xmls:
            return refuse(call)
        return string(xmls[flags])

    guest = DomainRef.of("g", UUID)
    assert ask(ask_previous_xmls(guest), answer) == (xmls[2], xmls[0])
    assert calls == [GUEST + uint(0), GUEST + uint(2)]
    stopped = xmls.pop(2)
    assert ask(ask_previous_xmls(guest), answer) == (xmls[0],)
    xmls[0] = stopped
    assert ask(ask_previous_xmls(guest), answer) == (stopped,)
    assert ask(ask_previous_xmls(guest), refuse) == ()


def test_a_refusal() -> None:
    """Where a rewrite needs the answer, the refusal ends it."""
    with pytest.raises(UpstreamError, match="access denied"):
        ask(ask_domain_xml(Reader(GUEST).domain(), 0), refuse)
