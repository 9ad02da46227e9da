"""The locked-memory limit that libvirt sets for a guest, and what PHBs add to it.

From qemuDomainGetMemLockLimitBytes and getPPC64MemLockLimitBytes in libvirt's src/qemu/qemu_domain.c.
Every PHB of a KVM guest adds to it, an empty one as well.
"""

from __future__ import annotations

from ..diagnostics import Diagnostic, Name, warning
from ..model import Guest, HostTopology

KIB_PER_MIB = 1024
KIB_PER_GIB = 1024**2

UNLIMITED = 2**53 - 1
"""VIR_DOMAIN_MEMORY_PARAM_UNLIMITED in libvirt's include/libvirt/libvirt-domain.h, in KiB."""

_NVLINK2_WINDOW = 128 * 1024**3 // 512
"""KiB of DMA tables for the window of a PHB with an NVLink2 GPU, which spans 128 TiB."""


def limit(guest: Guest, topology: HostTopology, phbs: int) -> int | None:
    """Return the locked-memory limit that libvirt sets.

    Args:
        guest: The guest.
        topology: What is known about its host devices.
        phbs: The number of its PHBs.

    Returns:
        The limit in KiB, UNLIMITED, or None if libvirt leaves the daemon's own.
    """
    memory = guest.memory
    if memory.hard_limit is not None and memory.hard_limit < UNLIMITED:
        return memory.hard_limit
    return UNLIMITED if memory.locked else _computed(guest, topology, phbs)


def cost(guest: Guest, topology: HostTopology, phbs: int) -> str:
    """Return a line about the limit with the guest's PHBs, and with another number of them.

    Args:
        guest: The guest.
        topology: What is known about its host devices.
        phbs: The other number of PHBs.
    """
    before = describe_limit(limit(guest, topology, max(len(guest.phbs), 1)))
    after = describe_limit(limit(guest, topology, phbs))
    if before == after:
        return f"locked-memory limit {after}"
    return f"locked-memory limit {before} before the layout, {after} after it"


def over_hard_limit(guest: Guest, topology: HostTopology, phbs: int) -> Diagnostic | None:
    """Return a warning if a guest with VFIO devices needs more locked memory than memtune's hard_limit, else None.

    Args:
        guest: The guest.
        topology: What is known about its host devices.
        phbs: The number of PHBs of its layout.
    """
    hard = guest.memory.hard_limit
    needed = _computed(guest, topology, phbs)
    if hard is None or not guest.vfio or needed is None or needed <= hard:
        return None
    text = (
        f"{phbs} vPHBs need {describe_limit(needed)} of locked memory, and memtune's hard_limit is "
        f"{describe_limit(hard)}; raise it, or ask for fewer spares"
    )
    return warning(Name.HARD_LIMIT, text)


def _computed(guest: Guest, topology: HostTopology, phbs: int) -> int | None:
    """Return the limit in KiB without regard to hard_limit and <locked/>, or None if there is none."""
    memory = guest.memory
    if not guest.is_kvm:
        return memory.current + KIB_PER_GIB if guest.vfio else None
    base = memory.maximum // 128 + 4 * KIB_PER_MIB * phbs + 8 * KIB_PER_MIB
    sources = (device.source for device in guest.devices if device.source is not None)
    if any(source in topology.devices and topology.devices[source].nvlink2 for source in sources):
        return base + memory.maximum + _NVLINK2_WINDOW * phbs + 8 * KIB_PER_MIB
    if guest.vfio:
        tables = memory.current + memory.current // 512 * phbs + 8 * KIB_PER_MIB
        return base + max(2 * KIB_PER_GIB * phbs, tables)
    return base


def describe_limit(kib: int | None) -> str:
    """Return a limit that limit() returned, in MiB or in words."""
    if kib is None:
        return "none"
    return "unlimited" if kib >= UNLIMITED else f"{(kib + KIB_PER_MIB - 1) // KIB_PER_MIB} MiB"
