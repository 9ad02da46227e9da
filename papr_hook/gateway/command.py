"""What papr-hook gateway does, and papr-hook attach, for hosts without a gateway."""

from __future__ import annotations

import os
import syslog
import time
from pathlib import Path
from typing import NoReturn
from uuid import UUID

from .. import hotplug
from ..config import Config, load_config
from ..errors import ConfError
from ..virt.connection import Connection
from . import server
from .rewrite import definitions_of
from .session import ATTACH_LOCK_TIMEOUT

POLL_SECONDS = 0.02


def gateway(listen: Path | None, upstream: Path | None, conf: Path | None) -> NoReturn:
    """Serve libvirt's clients until a signal ends the process.

    listen: where they come, beside the sockets that systemd passes; upstream: libvirt's own socket, None for the one
    that upstream_of() tells; conf: the configuration, which is read again for each call that is rewritten: clients
    are served even where it cannot be used. Raises ConfError where there is no socket to serve.
    """
    try:
        passed = server.listening(dict(os.environ))
        ways = {one: upstream or upstream_of(Path(one.getsockname())) for one in passed}
        if listen is not None:
            own = upstream or upstream_of(listen)
            ways[server.listen(listen, like=own)] = own
    except OSError as error:
        raise ConfError(f"{error.filename or listen}: {error.strerror}") from None
    if not ways:
        raise ConfError("systemd passed no sockets, and --listen names none")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    server.serve(ways, _run_directory(conf), lambda: load_config(conf))


def upstream_of(path: Path) -> Path:
    """Where libvirt's own socket is when the gateway has its place: below that, in upstream/, under the same name."""
    return path.parent / "upstream" / path.name


def _run_directory(conf: Path | None) -> Path:
    try:
        return load_config(conf).libvirt_run_dir
    except ConfError as error:
        server.say(syslog.LOG_ERR, f"{error}; until that is mended, everything goes to libvirt as it is")
        return Config().libvirt_run_dir


def attach_device(
    connection: Connection, guest: str, device: bytes, flags: int, config: Config
) -> tuple[str, str | None]:
    """Attach a device to a guest, on a vPHB of its own.

    connection: to its host; guest: its name or UUID; device: its XML; flags: libvirt's, for what the device is
    attached to. Returns where it was put, as a person reads it, "" where it needs no place; and what
    of its endpoint is missing now, None where nothing is. Raises PaprHookError.
    """
    placed, missing = device, None
    locks, uuid = server.open_locks(config.libvirt_run_dir), UUID(connection.uuid(guest)).bytes
    if hotplug.may_need_place(device):
        deadline = time.monotonic() + ATTACH_LOCK_TIMEOUT
        while not locks.acquire(uuid) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        definitions = [connection.xml(guest, flag) for flag in definitions_of(flags)]
        placed = hotplug.place(device, definitions, config)
        missing = hotplug.missing(device, definitions, config)
    if placed == device:
        locks.release(uuid)  # a gateway on the way may want it
    connection.attach(guest, placed, flags)
    return "" if placed == device else hotplug.where(placed), missing
