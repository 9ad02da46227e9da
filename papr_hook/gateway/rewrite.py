"""What becomes of each call that carries a definition or a device, or that starts a guest.

No I/O here: where a call needs to know something of libvirt first, its rewriting yields the call to ask with, and is
sent what that returned. So it can be driven by a socket, or by a test.
"""

from __future__ import annotations

import syslog
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Union

from .. import hotplug, pipeline
from ..config import Config
from ..errors import PaprHookError
from ..host.networks import is_hostdev_network
from ..layout.attach import NoSpareError
from ..virt.flags import AffectFlag, XmlFlag, affected_xmls
from .protocol import (
    PROGRAM,
    VERSION,
    DomainRef,
    Packet,
    Procedure,
    ProtocolError,
    Reader,
    Type,
    string,
    uint,
)

START_FORCE_BOOT = 8
"""VIR_DOMAIN_START_FORCE_BOOT of libvirt's include/libvirt/libvirt-domain.h."""


@dataclass(frozen=True)
class Call:
    """A call to libvirt; the rewriting is sent the payload of its reply, or UpstreamError where it failed."""

    procedure: int
    payload: bytes


@dataclass(frozen=True)
class LockRequest:
    """Request the guest's attach lock until libvirt has replied to the rewritten call."""

    guest: DomainRef


class UpstreamError(PaprHookError):
    """libvirt's answer to a question was an error."""


class RefusalError(PaprHookError):
    """The client is to get an error instead of an answer from libvirt."""


Log = Callable[[int, str], None]
"""Writes a line of a syslog priority to the journal."""

Rewrite = Generator[Union[Call, LockRequest], bytes, bytes]
"""A rewriting: yields what it needs, returns the payload that goes to libvirt."""


def start_rewrite(packet: Packet, load_config: Callable[[], Config], log: Log) -> Rewrite | None:
    """Return the rewrite of a client's packet, or None to forward it unchanged.

    load_config: reads the host's settings; log: writes to the journal. The steps may raise anything: then the
    packet goes on as it is, but for RefusalError. A device may be refused; a definition that cannot be laid out is
    left to libvirt.
    """
    if (packet.program, packet.version) != (PROGRAM, VERSION) or packet.type not in (Type.CALL, Type.CALL_WITH_FDS):
        return None
    rule = _RULES.get(packet.procedure)
    return None if rule is None else rule(packet.payload, load_config, log)


def _first(payload: bytes, load_config: Callable[[], Config], log: Log) -> Rewrite:
    """A call whose first argument is a definition."""
    return _definition(payload, 0, load_config, log)


def _second(payload: bytes, load_config: Callable[[], Config], log: Log) -> Rewrite:
    """A call whose second argument is a definition; the first is a string too."""
    reader = Reader(payload)
    reader.string()
    return _definition(payload, reader.at, load_config, log)


def _definition(payload: bytes, start: int, load_config: Callable[[], Config], log: Log) -> Rewrite:
    reader = Reader(payload[start:])
    data = reader.string()
    laid_out = yield from _laid_out(data, load_config(), log)
    if laid_out != data:
        payload = payload[:start] + string(laid_out) + payload[start + reader.at :]
    return payload


def _laid_out(data: bytes, load_config: Config, log: Log) -> Rewrite:
    analysis = pipeline.analyze(data, load_config)
    if analysis.guest is None:
        return data
    name = analysis.guest.name
    with _about(name):
        if analysis.topology.unread_networks:
            networks = yield from _hostdev_networks(analysis.topology.unread_networks)
            analysis = pipeline.analyze(data, load_config, hostdev_networks=networks)
        result = analysis.apply_layout()
    for diagnostic in result.diagnostics:
        log(syslog.LOG_WARNING, f"guest '{name}': {diagnostic.message}")
    if result.changed:
        log(syslog.LOG_INFO, f"guest '{name}': laid out on its way to libvirt")
    return result.data


def _hostdev_networks(names: frozenset[str]) -> Generator[Call | LockRequest, bytes, frozenset[str]]:
    """Which networks hand out host devices, as libvirt tells the client, who may not read their files."""
    found: set[str] = set()
    for name in sorted(names):
        try:
            network = yield Call(Procedure.NETWORK_LOOKUP_BY_NAME, string(name.encode()))
            xml = Reader((yield Call(Procedure.NETWORK_GET_XML_DESC, network + uint(0)))).string()
        except UpstreamError:
            continue  # libvirt will say so
        found.update({name} if is_hostdev_network(xml) else ())
    return frozenset(found)


@contextmanager
def _about(guest: str) -> Iterator[None]:
    """Have an error say which guest it is about."""
    try:
        yield
    except NoSpareError as error:
        raise RefusalError(f"papr-hook: guest '{guest}': {error}") from None
    except (PaprHookError, ProtocolError, TimeoutError) as error:
        raise PaprHookError(f"guest '{guest}': {error}") from error


def _start_plain(payload: bytes, load_config: Callable[[], Config], log: Log) -> Rewrite:
    """A start without flags."""
    return _start(payload, Reader(payload).domain(), 0, load_config, log)


def _start_with_flags(payload: bytes, load_config: Callable[[], Config], log: Log) -> Rewrite:
    reader = Reader(payload)
    guest = reader.domain()
    return _start(payload, guest, reader.uint(), load_config, log)


def _start(payload: bytes, guest: DomainRef, flags: int, load_config: Callable[[], Config], log: Log) -> Rewrite:
    """A start: its guest's definition is laid out first, unless a saved state with a layout is what starts.

    The passwords of a definition are in it only when it is read with SECURE, and it is that of the next start only
    with INACTIVE. One that complies but has too few spares gets new ones here, too.
    """
    with _about(guest.name):
        active = yield Call(Procedure.DOMAIN_IS_ACTIVE, guest.raw)
        if Reader(active).uint():
            return payload  # libvirt will say so; a transient guest must not become a persistent one
        if not flags & START_FORCE_BOOT:
            saved = yield Call(Procedure.DOMAIN_HAS_MANAGED_SAVE_IMAGE, guest.raw + uint(0))
            if Reader(saved).uint():
                return payload
        data = Reader(
            (yield Call(Procedure.DOMAIN_GET_XML_DESC, guest.raw + uint(XmlFlag.SECURE | XmlFlag.INACTIVE)))
        ).string()
    laid_out = yield from _laid_out(data, load_config(), log)
    if laid_out != data:
        with _about(guest.name):
            yield Call(Procedure.DOMAIN_DEFINE_XML_FLAGS, string(laid_out) + uint(0))
        log(syslog.LOG_NOTICE, f"guest '{guest.name}': defined anew for the start that was asked for")
    return payload


def _attach_plain(payload: bytes, load_config: Callable[[], Config], log: Log) -> Rewrite:
    """An attach without flags, which goes to the running guest."""
    reader = Reader(payload)
    return _attach(payload, reader, AffectFlag.LIVE, load_config, log)


def _attach_with_flags(payload: bytes, load_config: Callable[[], Config], log: Log) -> Rewrite:
    reader = Reader(payload)
    reader.domain()
    reader.string()
    return _attach(payload, Reader(payload), reader.uint(), load_config, log)


def _attach(payload: bytes, reader: Reader, flags: int, load_config: Callable[[], Config], log: Log) -> Rewrite:
    guest = reader.domain()
    start = reader.at
    device = reader.string()
    with _about(guest.name):
        if not hotplug.may_need_address(device):
            return payload
        wanted = [Call(Procedure.DOMAIN_GET_XML_DESC, guest.raw + uint(flag)) for flag in affected_xmls(flags)]
        yield wanted[0]  # whom libvirt does not let read the guest is not to keep others from it
        yield LockRequest(guest)
        domain_xmls = []
        for question in wanted:
            domain_xmls.append(Reader((yield question)).string())
        request = hotplug.read_request(device, domain_xmls, load_config())
        placement = request.place((yield from _hostdev_networks(request.unread_networks)))
    if placement.missing is not None:
        log(syslog.LOG_WARNING, f"guest '{guest.name}': {placement.missing.message}; attach these as well")
    return payload[:start] + string(placement.device) + payload[reader.at :]


def describe_call(packet: Packet) -> str:
    """Return what a message calls a call that is rewritten."""
    rule = _RULES.get(packet.procedure)
    if rule in (_attach_plain, _attach_with_flags):
        return "an attach"
    return "a start" if rule in (_start_plain, _start_with_flags) else "a definition"


_RULES: Mapping[int, Callable[[bytes, Callable[[], Config], Log], Rewrite]] = {
    Procedure.DOMAIN_ATTACH_DEVICE: _attach_plain,
    Procedure.DOMAIN_CREATE: _start_plain,
    Procedure.DOMAIN_CREATE_XML: _first,
    Procedure.DOMAIN_DEFINE_XML: _first,
    Procedure.CONNECT_DOMAIN_XML_TO_NATIVE: _second,
    Procedure.DOMAIN_ATTACH_DEVICE_FLAGS: _attach_with_flags,
    Procedure.DOMAIN_CREATE_WITH_FLAGS: _start_with_flags,
    Procedure.DOMAIN_CREATE_XML_WITH_FILES: _first,
    Procedure.DOMAIN_CREATE_WITH_FILES: _start_with_flags,
    Procedure.DOMAIN_DEFINE_XML_FLAGS: _first,
}
