"""Questions that a rewrite asks libvirt, on the client's connection and with the client's rights.

The arguments and results of the calls are those of libvirt's src/remote/remote_protocol.x.
"""

from __future__ import annotations

from ..domainxml.text import parse
from ..errors import InputError
from ..host.networks import is_hostdev_network
from ..virt.flags import XmlFlag
from .protocol import DomainRef, Procedure, Reader, string, uint
from .steps import Call, Steps, UpstreamError


def ask_domain_xml(guest: DomainRef, flags: int) -> Steps[bytes]:
    """Return the domain XML of a guest. Raises UpstreamError."""
    return Reader((yield Call(Procedure.DOMAIN_GET_XML_DESC, guest.raw + uint(flags)))).string()


def ask_snapshot_xml(snapshot: bytes) -> Steps[bytes]:
    """Return the XML of a snapshot, a remote_nonnull_domain_snapshot, without passwords. Raises UpstreamError."""
    return Reader((yield Call(Procedure.DOMAIN_SNAPSHOT_GET_XML_DESC, snapshot + uint(0)))).string()


def ask_is_active(guest: DomainRef) -> Steps[bool]:
    """Return whether a guest runs. Raises UpstreamError."""
    return bool(Reader((yield Call(Procedure.DOMAIN_IS_ACTIVE, guest.raw))).uint())


def ask_is_persistent(guest: DomainRef) -> Steps[bool]:
    """Return whether a guest is defined. Raises UpstreamError."""
    return bool(Reader((yield Call(Procedure.DOMAIN_IS_PERSISTENT, guest.raw))).uint())


def ask_has_managed_save(guest: DomainRef) -> Steps[bool]:
    """Return whether the next start of a guest restores its managed save. Raises UpstreamError."""
    return bool(Reader((yield Call(Procedure.DOMAIN_HAS_MANAGED_SAVE_IMAGE, guest.raw + uint(0)))).uint())


def ask_previous_xmls(guest: DomainRef) -> Steps[tuple[bytes, ...]]:
    """Return the domain XML that a guest has for its next start, then that of the running guest if it runs.

    Passwords are left out, because a client may be allowed less than to read them. A question that libvirt refuses is
    no memory.
    """
    try:
        present = yield from ask_domain_xml(guest, XmlFlag.LIVE)
    except UpstreamError:
        return ()
    try:
        if parse(present).getroot().get("id") is None:
            return (present,)
        return (yield from ask_domain_xml(guest, XmlFlag.INACTIVE)), present
    except (UpstreamError, InputError):
        return (present,)


def ask_hostdev_networks(names: frozenset[str]) -> Steps[frozenset[str]]:
    """Return which networks hand out host devices. The client's user may not read their files."""
    hostdev: set[str] = set()
    for name in sorted(names):
        try:
            network = yield Call(Procedure.NETWORK_LOOKUP_BY_NAME, string(name.encode()))
            xml = Reader((yield Call(Procedure.NETWORK_GET_XML_DESC, network + uint(0)))).string()
        except UpstreamError:
            continue  # libvirt reports it for the client's own call
        if is_hostdev_network(xml):
            hostdev.add(name)
    return frozenset(hostdev)
