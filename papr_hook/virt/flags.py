"""Flags of libvirt's API, for code that does not load libvirt-python.

From libvirt's include/libvirt/libvirt-domain.h and libvirt-domain-snapshot.h.
"""

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


class StartFlag(IntFlag):
    """How a guest is started (virDomainCreateFlags)."""

    NONE = 0
    PAUSED = 1
    FORCE_BOOT = 8


class SnapshotRevertFlag(IntFlag):
    """How a guest is reverted to a snapshot (virDomainSnapshotRevertFlags)."""

    RUNNING = 1
    PAUSED = 2


class SnapshotDeleteFlag(IntFlag):
    """Which snapshots are deleted, and what of them (virDomainSnapshotDeleteFlags)."""

    CHILDREN = 1
    METADATA_ONLY = 2
    CHILDREN_ONLY = 4


def affected_xmls(flags: int) -> tuple[XmlFlag, ...]:
    """Return how to read each domain XML that a change of a device applies to.

    Args:
        flags: libvirt's flags of the change.
    """
    if not flags & AffectFlag.CONFIG:
        return (XmlFlag.LIVE,)
    return (XmlFlag.LIVE, XmlFlag.INACTIVE) if flags & AffectFlag.LIVE else (XmlFlag.INACTIVE,)
