"""What libvirt keeps on disk about a guest, for a hook, which must not ask libvirt itself.

Definitions are in /etc/libvirt/qemu/NAME.xml, snapshots in
/var/lib/libvirt/qemu/snapshot/NAME/*.xml (libvirt src/qemu/qemu_conf.c, qemu_domain.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from .. import domainxml
from ..domainxml.text import parse
from ..errors import PaprHookError
from ..model import Guest

WITHOUT_MEMORY = frozenset({"shutoff", "disk-snapshot", "crashed", "nostate"})
"""States of a snapshot that no guest's memory belongs to."""


def definition(definitions: Path, name: str) -> bytes | None:
    """The definition of a guest's next start, as libvirt would give it, passwords and all.

    definitions: libvirt's directory of them; name: the guest's. None for a transient guest.
    """
    try:
        return (definitions / f"{name}.xml").read_bytes()
    except OSError:
        return None


def same_layout(one: bytes, other: bytes) -> bool:
    """Whether two definitions have the same PHBs, and devices at the same addresses."""
    shapes = [_shape(guest) for data in (one, other) for guest in _guest(data)]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def has_run(data: bytes) -> bool:
    """Whether a definition is that of a guest that ran: libvirt wrote its cgroup into it.

    From virDomainCgroupInitCgroup in libvirt's src/hypervisor/domain_cgroup.c, which does so
    after the hook. A person may have written one too, so this is a hint, not a proof.
    """
    root = parse(data).getroot()
    return root.find("resource/partition") is not None


def has_memory_of(snapshots: Path, name: str, starting: bytes) -> bool:
    """Whether a start may be a revert to a snapshot with memory.

    snapshots: libvirt's directory of them; name: the guest's; starting: the XML that it starts
    with. libvirt gives a hook the snapshot's own XML then, and no other sign.
    """
    try:
        files = sorted((snapshots / name).glob("*.xml"))
    except OSError:
        return False
    return any(
        same_layout(saved, starting) and (has_run(starting) or not has_run(saved))
        for file in files
        for saved in _saved_guests(file)
    )


def _saved_guests(file: Path) -> Iterator[bytes]:
    """The definition in a snapshot that has memory."""
    try:
        root = parse(file.read_bytes()).getroot()
    except (OSError, PaprHookError):
        return
    if root.findtext("state", "shutoff") in WITHOUT_MEMORY:
        return
    for inside in root.iterfind("domain"):
        saved = etree.tostring(inside, with_tail=False)
        assert isinstance(saved, bytes)
        yield saved


def _guest(data: bytes) -> Iterator[Guest]:
    try:
        guest = domainxml.read(data).guest
    except PaprHookError:
        return
    if guest is not None:
        yield guest


def _shape(guest: Guest) -> tuple[object, ...]:
    return (
        sorted((phb.index, phb.target) for phb in guest.phbs),
        sorted((bridge.index, bridge.model) for bridge in guest.bridges),
        sorted(str(device.address) for device in guest.devices),
    )
