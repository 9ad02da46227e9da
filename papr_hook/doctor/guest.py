"""Judge a running guest: what libvirt's domain XML says, compared with what QEMU has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..diagnostics import Diagnostic, Name, error, note, warning
from ..layout.capacity import empty_vphbs
from ..model import Guest, Phb
from .qtree import QemuPhb

MONITOR_USED = "QEMU was asked with 'info qtree': libvirt marks the guest as tainted (custom-monitor) until it stops"


def judge_guest(guest: Guest, phbs: Sequence[QemuPhb]) -> Iterator[Diagnostic]:
    """Yield where QEMU differs from the domain XML of a running guest.

    Devices behind a bridge are not compared.

    Args:
        guest: The guest as libvirt has it.
        phbs: Its PHBs as QEMU has them.
    """
    found = {phb.index: phb for phb in phbs}
    expected = {phb.target: phb for phb in guest.phbs if phb.target is not None}
    for target, vphb in sorted(expected.items()):
        if target not in found:
            text = (
                f"is in the domain XML with target index {target}, but QEMU has no such PHB: "
                "shut the guest down and start it again"
            )
            yield error(Name.PHB_MISSING, text, f"vPHB {vphb.index}", vphb.line)
    for phb in phbs:
        if phb.index not in expected and phb.index not in guest.commandline_targets:
            yield _unknown_phb(phb)
    yield from _judge_devices(guest, expected, found)
    plain = [phb.index for phb in phbs if not phb.has_extended_config]
    if plain:
        text = (
            f"PCIe devices on the PHBs {_list(plain)} lack ibm,pci-config-space-type, so the guest sees 256 bytes of "
            "their config space: use a machine type of pseries-2.9 or later"
        )
        yield warning(Name.CONFIG_SPACE, text)
    yield _count_free(guest, expected, found)


def _unknown_phb(phb: QemuPhb) -> Diagnostic:
    text = (
        "is in QEMU but not in libvirt's domain XML, so a save of the guest cannot be restored, and it cannot be "
        "migrated: "
    )
    text += f"remove it with device_del {phb.id}, or " if phb.id else ""
    return error(Name.PHB_UNKNOWN, f"{text}shut the guest down and start it again", f"PHB {phb.index} '{phb.id}'")


def _judge_devices(guest: Guest, expected: Mapping[int, Phb], found: Mapping[int, QemuPhb]) -> Iterator[Diagnostic]:
    """Yield the devices that only one of libvirt and QEMU has."""
    targets = {phb.index: target for target, phb in expected.items()}
    for device in guest.devices:
        at = device.address
        phb = found.get(targets[at.bus]) if at is not None and at.bus in targets else None
        if at is None or phb is None:
            continue
        if (at.slot, at.function) not in [(other.slot, other.function) for other in phb.devices]:
            text = f"is not in QEMU at {at}: shut the guest down and start it again"
            yield error(Name.DEVICE_MISSING, text, device.name, device.line)
    addresses = [device.address for device in guest.devices] + [bridge.address for bridge in guest.bridges]
    taken = {(at.bus, at.slot, at.function) for at in addresses if at is not None}
    for target, vphb in sorted(expected.items()):
        if target not in found or vphb.index in guest.used_by_commandline:
            continue
        for other in found[target].devices:
            if (vphb.index, other.slot, other.function) not in taken:
                where = f"vPHB {vphb.index} slot {other.slot}"
                text = f"is on {where} in QEMU but not in libvirt's domain XML: a save of the guest cannot be restored"
                yield warning(Name.DEVICE_UNKNOWN, text, f"{other.model} '{other.id}'")


def _count_free(guest: Guest, expected: Mapping[int, Phb], found: Mapping[int, QemuPhb]) -> Diagnostic:
    """Return how many vPHBs a device can be attached to: those that are empty in QEMU, too."""
    targets = {phb.index: target for target, phb in expected.items()}
    free = sorted(
        bus
        for bus in empty_vphbs(guest)
        if bus in targets and targets[bus] in found and not found[targets[bus]].devices
    )
    listed = f": {_list(free)}" if free else ""
    return note(Name.FREE_VPHBS, f"{len(free)} of {len(guest.phbs)} vPHBs are free for hotplug{listed}")


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
