"""Rewrites of calls that bring the XML of a device."""

from __future__ import annotations

import syslog

from .. import hotplug
from ..virt.flags import AffectFlag, XmlFlag, affected_xmls
from .protocol import DomainRef, Reader, string
from .questions import ask_domain_xml, ask_hostdev_networks, ask_is_active
from .steps import LoadConfig, LockRequest, Log, Rewrite, Steps, about


def rewrite_attach(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Give the device of a call without flags, which attaches to the running guest, an address."""
    return _attach(payload, Reader(payload), AffectFlag.LIVE, load_config, log)


def rewrite_attach_with_flags(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Give the device that a call attaches an address."""
    return _attach(payload, Reader(payload), _read_flags(payload), load_config, log)


def _attach(payload: bytes, reader: Reader, flags: int, load_config: LoadConfig, log: Log) -> Rewrite:
    guest = reader.domain()
    start = reader.at
    device = reader.string()
    with about(guest.name):
        if not hotplug.may_need_address(device):
            return payload
        xml_flags = affected_xmls(flags)
        # A client that may not read the guest must not get its lock either, or it could hold up everybody else. The
        # question needs the same right as the domain XML does, but no job, for which it would wait if QEMU hangs.
        yield from ask_is_active(guest)
        yield LockRequest(guest)
        request = hotplug.read_request(device, (yield from _ask_domain_xmls(guest, xml_flags)), load_config())
        placement = request.place((yield from ask_hostdev_networks(request.unread_networks)))
    if placement.missing is not None:
        log(syslog.LOG_WARNING, f"guest '{guest.name}': {placement.missing.message}")
    return payload[:start] + string(placement.device) + payload[reader.at :]


def rewrite_update(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Give the device that a call replaces in the domain XML for the next start its address.

    A running guest's devices keep their places: libvirt changes them in place.
    """
    reader = Reader(payload)
    guest = reader.domain()
    start = reader.at
    device = reader.string()
    flags = _read_flags(payload)
    if flags & (AffectFlag.LIVE | AffectFlag.CONFIG) == AffectFlag.LIVE:
        return payload
    with about(guest.name):
        if not hotplug.may_need_address(device):
            return payload
        domain_xmls = yield from _ask_domain_xmls(guest, affected_xmls(flags))
        updated = hotplug.keep_address(device, domain_xmls, load_config())
    return payload[:start] + string(updated) + payload[reader.at :]


def _read_flags(payload: bytes) -> int:
    reader = Reader(payload)
    reader.domain()
    reader.string()
    return reader.uint()


def _ask_domain_xmls(guest: DomainRef, xml_flags: tuple[XmlFlag, ...]) -> Steps[list[bytes]]:
    domain_xmls = []
    for flags in xml_flags:
        domain_xmls.append((yield from ask_domain_xml(guest, flags)))
    return domain_xmls
