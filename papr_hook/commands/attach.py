"""papr-hook attach: attach a device to a guest of a host without the gateway."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from uuid import UUID

from .. import files, hotplug
from ..config import Config, load_config
from ..hotplug import Placement
from ..virt.connection import Connection, connect
from ..virt.flags import AffectFlag, affected_xmls
from ..virt.locks import ATTACH_LOCK_TIMEOUT, AttachLock, AttachLocks, open_attach_locks
from ._io import Io
from ._options import add_conf, add_connect

_POLL_SECONDS = 0.02


class AttachArgs(argparse.Namespace):
    """The arguments of the command."""

    guest: str
    file: str
    live: bool
    config: bool
    connect: str | None
    conf: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("guest", metavar="GUEST", help="name or UUID of the guest")
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="device XML (default: standard input)")
    parser.add_argument("--live", action="store_true", help="attach to the running guest")
    parser.add_argument("--config", action="store_true", help="attach to the persistent domain XML")
    add_connect(parser)
    add_conf(parser)


def run(args: AttachArgs, io: Io) -> int:
    """Attach a device. Return the exit status."""
    config = load_config(args.conf)
    flags = (AffectFlag.LIVE if args.live else 0) | (AffectFlag.CONFIG if args.config else 0)
    device = files.read(args.file, io.stdin)
    with connect(args.connect or config.uri) as connection:
        placement = attach_device(connection, args.guest, device, flags, config)
    if placement.missing is not None:
        io.warn(f"papr-hook: {args.guest}: {placement.missing}")
    io.print(f"{args.guest}: attached{f' on {placement.place}' if placement.place else ''}")
    return 0


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
