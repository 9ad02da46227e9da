"""Flags of libvirt's API, from its include/libvirt/libvirt-domain.h, for code that does not load libvirt-python."""

from __future__ import annotations

from enum import IntFlag


class XmlFlag(IntFlag):
    """What a domain XML that libvirt returns has in it (virDomainXMLFlags)."""

    LIVE = 0
    SECURE = 1
    INACTIVE = 2


class AffectFlag(IntFlag):
    """What a change of a device applies to (virDomainModificationImpact); CURRENT is the running guest if it runs."""

    CURRENT = 0
    LIVE = 1
    CONFIG = 2


def affected_xmls(flags: int) -> tuple[XmlFlag, ...]:
    """Return how to read each domain XML that a change of a device applies to.

    Args:
        flags: libvirt's flags of the change.
    """
    if not flags & AffectFlag.CONFIG:
        return (XmlFlag.LIVE,)
    return (XmlFlag.LIVE, XmlFlag.INACTIVE) if flags & AffectFlag.LIVE else (XmlFlag.INACTIVE,)
