"""The order in which the layout places device groups that have no place.

It follows libvirt's own order (qemuDomainAssignDevicePCISlots in its src/qemu/qemu_domain_address.c) and is a promise:
what a newer libvirt does changes nothing here.
"""

from __future__ import annotations

from ..model import Device
from .current import CurrentLayout
from .groups import DeviceGroup

_KINDS = (
    "filesystem",
    "sound",
    "controller scsi",
    "controller virtio-serial",
    "controller usb",
    "disk",
    "memballoon",
    "rng",
    "watchdog",
    "video",
    "shmem",
    "input",
    "serial",
    "vsock",
)
"""Kinds of emulated devices other than NICs in libvirt's order; all others come last, by their names."""

_RANKS = {kind: rank for rank, kind in enumerate(_KINDS)}


def endpoint_order(group: DeviceGroup, current: CurrentLayout) -> tuple[int, int]:
    """Sort key of endpoints: NICs of hostdev networks, then <interface type='hostdev'>, then <hostdev>.

    An endpoint counts where its first member does.
    """
    return min((_endpoint_rank(current.guest.devices[member]), member) for member in group.members)


def _endpoint_rank(device: Device) -> int:
    if not device.is_interface:
        return 2
    return 1 if device.passthrough else 0


def device_order(group: DeviceGroup, current: CurrentLayout) -> tuple[int, str, int, str, int]:
    """Sort key of emulated groups other than NICs: by kind, then as libvirt sorts that kind, then as written."""
    return min((*_device_rank(current.guest.devices[member]), member) for member in group.members)


def _device_rank(device: Device) -> tuple[int, str, int, str]:
    """Return the rank of a device's kind, and of the device in it; two disks may have one number, as vda and sda."""
    name = device.identity if device.kind == "disk" else None
    return _RANKS.get(device.kind, len(_KINDS)), device.kind, device.rank, name or ""
