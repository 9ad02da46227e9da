"""Rewrites of calls that bring the domain XML of a guest, or that start a guest some time."""

from __future__ import annotations

import syslog
from uuid import UUID

from lxml import etree

from .. import pipeline
from ..config import Config
from ..domainxml.text import parse
from ..errors import PaprHookError
from ..layout.check import complies
from ..pipeline import Analysis, Result
from ..virt.flags import SnapshotDeleteFlag, SnapshotRevertFlag, StartFlag, XmlFlag
from ..virt.hook_files import find_hook_fault
from .protocol import DomainRef, Procedure, Reader, string, uint
from .questions import (
    ask_domain_xml,
    ask_has_managed_save,
    ask_hostdev_networks,
    ask_is_active,
    ask_is_persistent,
    ask_previous_xmls,
    ask_snapshot_xml,
)
from .steps import Call, ForwardInTwo, LoadConfig, Log, Rewrite, Steps, about

WITHOUT_MEMORY = frozenset({"shutoff", "disk-snapshot", "crashed"})
"""States of a snapshot from which a revert starts cold (qemuDomainRevertToSnapshot in src/qemu/qemu_snapshot.c)."""

MAX_EDITS = 3
"""Edits of a guest by others during one rewrite, after which the guest is not laid out."""


def rewrite_first_string(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Lay out the domain XML that is the first argument of a call."""
    return _rewrite_string(payload, 0, load_config, log)


def rewrite_second_string(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Lay out the domain XML that is the second argument of a call; the first is a string too."""
    reader = Reader(payload)
    reader.string()
    return _rewrite_string(payload, reader.at, load_config, log)


def _rewrite_string(payload: bytes, start: int, load_config: LoadConfig, log: Log) -> Rewrite:
    reader = Reader(payload[start:])
    analysis = yield from _analyze(reader.string(), load_config())
    if analysis.guest is None:
        return payload
    with about(analysis.guest.name):
        previous = yield from _ask_previous(analysis)
        result = analysis.apply_layout(previous)
    _log_diagnostics(analysis.guest.name, result, log)
    if result.changed:
        log(syslog.LOG_INFO, f"guest '{analysis.guest.name}': laid out on its way to libvirt")
    return payload[:start] + string(result.data) + payload[start + reader.at :]


def rewrite_start(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Lay out the guest that a call without flags starts."""
    return _start(payload, Reader(payload).domain(), 0, load_config, log)


def rewrite_start_with_flags(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Lay out the guest that a call starts."""
    reader = Reader(payload)
    guest = reader.domain()
    return _start(payload, guest, reader.uint(), load_config, log)


def _start(payload: bytes, guest: DomainRef, flags: int, load_config: LoadConfig, log: Log) -> Rewrite:
    with about(guest.name):
        if (yield from ask_is_active(guest)):
            return payload  # libvirt refuses the start; a transient guest must not become persistent
        if not flags & StartFlag.FORCE_BOOT and (yield from ask_has_managed_save(guest)):
            return payload
        is_laid_out = yield from _define_laid_out(guest, load_config(), log)
    fault = find_hook_fault() if is_laid_out else None
    if fault is not None:
        log(syslog.LOG_WARNING, fault)
    return payload


def rewrite_autostart(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Lay out the guest whose autostart is set: libvirt starts it without a client."""
    reader = Reader(payload)
    guest = reader.domain()
    if not reader.uint():
        return payload
    with about(guest.name):
        if (yield from ask_is_persistent(guest)):
            yield from _define_laid_out(guest, load_config(), log)
    return payload


def rewrite_snapshot_delete(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Lay out the guest whose external snapshot is deleted while it is off.

    libvirt starts its QEMU to merge the disks (qemuSnapshotDeleteExternalPrepare in its src/qemu/qemu_snapshot.c).
    """
    snapshot, guest, flags = _read_snapshot_call(payload)
    if flags & SnapshotDeleteFlag.METADATA_ONLY:
        return payload
    with about(guest.name):
        if (yield from ask_is_active(guest)):
            return payload
        children = flags & (SnapshotDeleteFlag.CHILDREN | SnapshotDeleteFlag.CHILDREN_ONLY)
        if children or _is_external((yield from ask_snapshot_xml(snapshot))):
            yield from _define_laid_out(guest, load_config(), log)
    return payload


def rewrite_snapshot_revert(payload: bytes, load_config: LoadConfig, log: Log) -> Rewrite:
    """Lay out the guest that is reverted to a snapshot without memory and starts then.

    libvirt starts it with the domain XML of the snapshot, whose layout cannot be changed: a redefined snapshot must
    have the same addresses (virDomainSnapshotRedefineValidate in its src/conf/snapshot_conf.c). So the gateway reverts
    without a start, and starts the guest like a client, which lays it out. A revert that has begun is never repeated.

    A revert beside a managed save goes to libvirt as it is: a start would restore that.
    """
    snapshot, guest, flags = _read_snapshot_call(payload)
    starts = flags & int(SnapshotRevertFlag.RUNNING | SnapshotRevertFlag.PAUSED)
    if not starts:
        return payload
    with about(guest.name):
        domain_xml = _cold_start_xml((yield from ask_snapshot_xml(snapshot)))
        if domain_xml is None or not (yield from ask_is_persistent(guest)):
            return payload
        if complies((yield from _analyze(domain_xml, load_config())).violations()):
            return payload
        if (yield from ask_has_managed_save(guest)):
            return payload
    start = StartFlag.PAUSED if flags & SnapshotRevertFlag.PAUSED else StartFlag.NONE
    return ForwardInTwo(
        Call(Procedure.DOMAIN_REVERT_TO_SNAPSHOT, snapshot + uint(flags & ~starts)),
        Call(Procedure.DOMAIN_CREATE_WITH_FLAGS, guest.raw + uint(start)),
    )


def _read_snapshot_call(payload: bytes) -> tuple[bytes, DomainRef, int]:
    """Return the snapshot that a call names, its guest, and the call's flags."""
    reader = Reader(payload)
    reader.string()
    guest = reader.domain()
    return payload[: reader.at], guest, reader.uint()


def _is_external(snapshot_xml: bytes) -> bool:
    root = parse(snapshot_xml).getroot()
    return any(disk.get("snapshot") == "external" for disk in root.iterfind("disks/disk"))


def _cold_start_xml(snapshot_xml: bytes) -> bytes | None:
    """Return the domain XML that a revert to a snapshot starts cold, or None if it resumes memory."""
    root = parse(snapshot_xml).getroot()
    domain = root.find("inactiveDomain")
    if domain is None:
        domain = root.find("domain")
    if domain is None or root.findtext("state") not in WITHOUT_MEMORY:
        return None
    domain.tag = "domain"
    return etree.tostring(domain, with_tail=False)


def _define_laid_out(guest: DomainRef, config: Config, log: Log) -> Steps[bool]:
    """Define the laid-out domain XML of a guest, if the layout changes it. Return whether it did.

    Only with SECURE does the domain XML have its passwords, and only with INACTIVE is it that of the next start. It is
    read again right before it is defined, so that edits by others are not lost: libvirt has no compare-and-set.
    """
    flags = XmlFlag.SECURE | XmlFlag.INACTIVE
    data = yield from ask_domain_xml(guest, flags)
    for _ in range(MAX_EDITS):
        result = (yield from _analyze(data, config)).apply_layout()
        if not result.changed:
            _log_diagnostics(guest.name, result, log)
            return False
        current = yield from ask_domain_xml(guest, flags)
        if current == data:
            yield Call(Procedure.DOMAIN_DEFINE_XML_FLAGS, string(result.data) + uint(0))
            _log_diagnostics(guest.name, result, log)
            log(syslog.LOG_NOTICE, f"guest '{guest.name}': laid out for its next start")
            return True
        data = current
    raise PaprHookError("its domain XML changes all the time; not laid out")


def _analyze(data: bytes, config: Config) -> Steps[Analysis]:
    """Analyze domain XML, with what libvirt says of networks whose files the client may not read."""
    analysis = pipeline.analyze(data, config)
    if analysis.guest is None or not analysis.topology.unread_networks:
        return analysis
    networks = yield from ask_hostdev_networks(analysis.topology.unread_networks)
    return pipeline.analyze(data, config, hostdev_networks=networks)


def _ask_previous(analysis: Analysis) -> Steps[tuple[bytes, ...]]:
    """Return the domain XMLs that a guest has already, if one of its devices lacks a place, or nothing.

    Clients that define a guest again and again leave the addresses out. A guest without a UUID is a new one.
    """
    if analysis.guest is None or not analysis.lacks_place:
        return ()
    try:
        uuid = UUID(analysis.domain.tree.getroot().findtext("uuid", "").strip())
    except ValueError:
        return ()
    return (yield from ask_previous_xmls(DomainRef.of(analysis.guest.name, uuid.bytes)))


def _log_diagnostics(guest: str, result: Result, log: Log) -> None:
    """Write to the journal what the administrator should know of a layout."""
    for diagnostic in result.diagnostics:
        log(syslog.LOG_WARNING, f"guest '{guest}': {diagnostic.message}")
