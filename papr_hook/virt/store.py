"""libvirt's files about guests, for the hook, which must not ask libvirt itself.

Domain XML is in /etc/libvirt/qemu/NAME.xml, the links of guests on autostart are in autostart/ there, and snapshots
are in /var/lib/libvirt/qemu/snapshot/NAME/*.xml (libvirt src/qemu/qemu_conf.c, src/conf/virdomainobjlist.c and
src/qemu/qemu_domain.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from lxml import etree

from .. import domainxml
from ..domainxml.text import parse
from ..errors import PaprHookError
from ..model import Guest

_STATES_WITHOUT_MEMORY = frozenset({"shutoff", "disk-snapshot", "crashed", "nostate"})
"""States of a snapshot that holds no memory of the guest (virDomainSnapshotState in libvirt's
src/conf/virconftypes.h and snapshot_conf.c)."""

_HEADER_END = b"-->"
"""libvirt puts a comment before the domain XML that it keeps (virXMLEmitWarning in its src/util/virxml.c)."""


def read_domain_xml(domain_dir: Path, guest: str) -> bytes | None:
    """Return the domain XML of a guest's next start, byte for byte as libvirt's API returns it, with passwords.

    Args:
        domain_dir: libvirt's directory of domain XML.
        guest: the guest's name.

    Returns:
        The domain XML, or None for a transient guest.
    """
    try:
        data = (domain_dir / f"{guest}.xml").read_bytes()
    except OSError:
        return None
    if data.startswith(b"<!--"):
        data = data.partition(_HEADER_END)[2]
    return data.strip()


class Autostart(Enum):
    """Whether libvirt starts a guest when the host boots."""

    NEVER = "never"
    ONCE = "at the next boot"
    ALWAYS = "at each boot"


def read_autostart(domain_dir: Path, guest: str) -> Autostart:
    """Return whether libvirt starts a guest when the host boots.

    Args:
        domain_dir: libvirt's directory of domain XML.
        guest: the guest's name.
    """
    link = domain_dir / "autostart" / f"{guest}.xml"
    if link.exists():
        return Autostart.ALWAYS
    # libvirt 11.2 and later (qemuDomainSetAutostartOnce in its src/qemu/qemu_driver.c)
    return Autostart.ONCE if link.with_name(f"{link.name}.once").exists() else Autostart.NEVER


def has_same_layout(one: bytes, other: bytes) -> bool:
    """Tell whether two domain XMLs have the same PCI controllers, and devices at the same addresses.

    Args:
        one: domain XML.
        other: domain XML; one that is malformed, or is no pseries guest's, is like no other.
    """
    guests = [_read_guest(data) for data in (one, other)]
    shapes = [_shape(guest) for guest in guests if guest is not None]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def has_run(data: bytes) -> bool:
    """Tell whether domain XML comes from a guest that ran: libvirt added the guest's cgroup to it.

    libvirt does so after it called the hook (virDomainCgroupInitCgroup in its src/hypervisor/domain_cgroup.c). Users
    may write <resource> as well, so this is a hint and no proof.

    Args:
        data: the domain XML.

    Raises:
        InputError: it is malformed.
    """
    return parse(data).getroot().find("resource/partition") is not None


def may_start_for_snapshot(snapshot_dir: Path, guest: str, starting: bytes) -> bool:
    """Tell whether a start may be a step of a snapshot's revert or deletion, which a refusal would leave half done.

    A revert starts the guest from the domain XML in the snapshot, also where the snapshot holds no memory and the
    user asked for a running guest. The deletion of an external snapshot starts a guest that is off, to merge its
    disks. libvirt gives the hook no sign of either (qemuSnapshotRevert and qemuSnapshotDelete in its
    src/qemu/qemu_snapshot.c).

    Args:
        snapshot_dir: libvirt's directory of snapshots.
        guest: the guest's name.
        starting: the domain XML of the start.
    """
    try:
        files = sorted((snapshot_dir / guest).glob("*.xml"))
    except OSError:
        return False
    return any(_may_use_snapshot(file, starting) for file in files)


def _may_use_snapshot(file: Path, starting: bytes) -> bool:
    try:
        root = parse(file.read_bytes()).getroot()
    except (OSError, PaprHookError):
        return False
    if any(disk.get("snapshot") == "external" for disk in root.iterfind("disks/disk")):
        return True
    return any(
        has_same_layout(saved, starting) and (has_run(starting) or not has_run(saved))
        for saved in _starting_domain_xml(root)
    )


def _starting_domain_xml(snapshot: etree._Element) -> Iterator[bytes]:
    """Yield the domain XML that a revert to a snapshot may start the guest from.

    <inactiveDomain> is the next start's at the time of the snapshot. A guest that resumes memory starts from the
    domain XML that belongs to it.
    """
    has_memory = snapshot.findtext("state", "shutoff") not in _STATES_WITHOUT_MEMORY
    for name in ("domain",) if has_memory else ("domain", "inactiveDomain"):
        for element in snapshot.iterfind(name):
            saved = etree.fromstring(etree.tostring(element, with_tail=False))
            saved.tag = "domain"
            yield bytes(etree.tostring(saved))


def _read_guest(data: bytes) -> Guest | None:
    try:
        return domainxml.read(data).guest
    except PaprHookError:
        return None


def _shape(guest: Guest) -> tuple[object, ...]:
    return (
        sorted((phb.index, phb.target) for phb in guest.phbs),
        sorted((bridge.index, bridge.model) for bridge in guest.bridges),
        sorted(str(device.address) for device in guest.devices),
    )
