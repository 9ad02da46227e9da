"""papr-hook attach: attach a device to a guest of a host without the gateway."""

from __future__ import annotations

import time
from uuid import UUID

from .. import hotplug
from ..config import Config
from ..hotplug import Placement
from ..virt.connection import Connection
from ..virt.flags import affected_xmls
from ..virt.locks import ATTACH_LOCK_TIMEOUT, AttachLock, AttachLocks, open_attach_locks

_POLL_SECONDS = 0.02


def attach_device(connection: Connection, guest: str, device: bytes, flags: int, config: Config) -> Placement:
    """Attach a device to a guest, on a vPHB of its own.

    Args:
        connection: A connection to the guest's host.
        guest: The guest's name or UUID.
        device: The device XML.
        flags: libvirt's virDomainDeviceModifyFlags.
        config: The host's settings.

    Returns:
        Where the device was put.

    Raises:
        PaprHookError: The guest has no vPHB for the device, or libvirt refused the attach.
    """
    if not hotplug.may_need_address(device):
        connection.attach(guest, device, flags)
        return Placement(device)
    lock = _wait_for_lock(open_attach_locks(config.libvirt_run_dir), UUID(connection.uuid(guest)).bytes)
    domain_xmls = [connection.xml(guest, flag) for flag in affected_xmls(flags)]
    placement = hotplug.read_request(device, domain_xmls, config).place()
    if placement.address is None and lock is not None:
        lock.release()  # a gateway between here and libvirt may need it
    connection.attach(guest, placement.device, flags)
    return placement


def _wait_for_lock(locks: AttachLocks, uuid: bytes) -> AttachLock | None:
    """Return the attach lock of a guest, or None if other attaches have it for too long.

    libvirt then refuses the second of two devices that are given the same address.
    """
    deadline = time.monotonic() + ATTACH_LOCK_TIMEOUT
    while True:
        lock = locks.acquire(uuid)
        if lock is not None or time.monotonic() > deadline:
            return lock
        time.sleep(_POLL_SECONDS)
