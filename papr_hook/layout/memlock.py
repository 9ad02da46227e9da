"""How much memory a layout has libvirt lock for a guest.

From getPPC64MemLockLimitBytes in libvirt's src/qemu/qemu_domain.c. KVM guests, and all that have
VFIO devices, need it; every PHB adds to it, an empty one too.
"""

from __future__ import annotations

from ..diagnostics import Diagnostic, Name, warning
from ..model import Guest, HostTopology

MIB = 1024


def limit(guest: Guest, topology: HostTopology, phbs: int) -> int:
    """The locked-memory limit in KiB that libvirt gives a guest with a number of PHBs."""
    memory = guest.memory
    base = memory.maximum // 128 + 4 * MIB * phbs + 8 * MIB
    sources = (device.source for device in guest.devices if device.source is not None)
    if any(source in topology.devices and topology.devices[source].nvlink2 for source in sources):
        return base + memory.maximum + 128 * 1024**3 // 512 * phbs + 8 * MIB
    if guest.vfio:
        return base + max(2 * 1024 * MIB * phbs, memory.current + memory.current // 512 * phbs + 8 * MIB)
    return base


def cost(guest: Guest, topology: HostTopology, phbs: int) -> str:
    """A line that says what the limit is with the guest's PHBs, and what with another number."""
    before = limit(guest, topology, max(len(guest.phbs), 1))
    after = limit(guest, topology, phbs)
    if before == after:
        return f"locked-memory limit {_mib(after)}"
    return f"locked-memory limit {_mib(before)} before the layout, {_mib(after)} after it"


def over_hard_limit(guest: Guest, topology: HostTopology, phbs: int) -> Diagnostic | None:
    """Return a warning if a layout needs more locked memory than memtune's hard_limit, else None."""
    hard = guest.memory.hard_limit
    if hard is None or not guest.vfio or limit(guest, topology, phbs) <= hard:
        return None
    text = (
        f"{phbs} vPHBs need {_mib(limit(guest, topology, phbs))} of locked memory, and memtune's hard_limit is "
        f"{_mib(hard)}; raise it, or ask for fewer spares"
    )
    return warning(Name.HARD_LIMIT, text)


def _mib(kib: int) -> str:
    return f"{-(-kib // MIB)} MiB"
