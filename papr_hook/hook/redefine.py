"""Redefine a guest from a detached process, after the hook has exited and the refused start has failed.

libvirt waits until every process that holds the hook's descriptors has exited, and keeps the guest locked until then:
calling libvirt from the hook would deadlock. The helper process therefore starts its own session and closes what it
inherited. It connects to libvirt while the hook still runs, and redefines the guest only after the hook has exited.

While libvirt starts the guests on autostart it serves no client, so the helper connects only after that. libvirt does
not repeat a refused autostart: the helper starts such a guest itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import time
from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn

from .. import journal, pipeline
from ..config import Config
from ..errors import LayoutError, LibvirtError, PaprHookError
from ..virt.connection import Connection, connect
from ..virt.redefinition import Redefinition
from ..virt.store import Autostart
from . import adoption

CONNECT_SECONDS: Final = 4.0
"""How long the hook waits for the helper to connect to libvirt."""

AUTOSTART_CONNECT_SECONDS: Final = 0.3
"""The same for a guest on autostart: a connection takes some 20 ms, or as long as all autostarts together."""

EXIT_SECONDS: Final = 120.0
"""How long the helper waits for the hook to exit; libvirt itself has no limit."""

BOOT_SECONDS: Final = 120.0
"""How long the helper tries to connect while the host boots."""

RETRY_SECONDS: Final = 0.5
"""Between two tries."""

_CONNECTED: Final = b"c"
_REDEFINE: Final = b"r"
_REDEFINE_AND_START: Final = b"s"


class Helper(Enum):
    """How far the helper process is when the hook has to answer libvirt."""

    CONNECTED = "connected"
    WAITING = "waiting for libvirt to serve clients"
    FAILED = "failed"


@dataclass(frozen=True)
class RefusedGuest:
    """A guest whose start the hook refuses.

    name: its name. uuid: its UUID. autostart: whether libvirt starts it at boot. data: its domain XML for the next
    start, as libvirt returns it.
    """

    name: str
    uuid: str
    autostart: Autostart
    data: bytes


def redefine_after_exit(guest: RefusedGuest, config: Config, hook: int) -> Helper:
    """Start the helper process for a guest.

    The helper redefines the guest once the hook has exited. It also starts the guest if the answer is WAITING and the
    guest is on autostart.

    Args:
        guest: the guest.
        config: the host's settings.
        hook: the process that libvirt waits for.

    Returns:
        How far the helper is; FAILED if there is none.
    """
    try:
        hook_pidfd = os.pidfd_open(hook)
        here, there = socket.socketpair()
        child = os.fork()
    except OSError:
        return Helper.FAILED
    if child == 0:
        _run_helper(guest, config, hook_pidfd, there)
    there.close()
    os.close(hook_pidfd)
    os.waitpid(child, 0)
    with here:
        return _agree(here, guest.autostart is not Autostart.NEVER)


def _agree(channel: socket.socket, autostarted: bool) -> Helper:
    """Wait for the helper, and tell it whether to start the guest, so that it does what the user is told."""
    helper = Helper.WAITING
    if _is_readable(channel.fileno(), AUTOSTART_CONNECT_SECONDS if autostarted else CONNECT_SECONDS):
        helper = Helper.CONNECTED if channel.recv(1) == _CONNECTED else Helper.FAILED
    may_start = autostarted and helper is Helper.WAITING
    try:
        channel.sendall(_REDEFINE_AND_START if may_start else _REDEFINE)
    except OSError:
        return Helper.FAILED
    return helper


def _run_helper(guest: RefusedGuest, config: Config, hook_pidfd: int, channel: socket.socket) -> NoReturn:
    """Be the helper process."""
    try:
        _detach({hook_pidfd, channel.fileno()})
        prepared = _prepare(guest.data, config)
        with contextlib.ExitStack() as stack:
            connection = _connect(stack, guest, config)
            with contextlib.suppress(OSError):  # the hook did not wait so long
                channel.sendall(_CONNECTED)
            may_start = channel.recv(1) == _REDEFINE_AND_START
            channel.close()
            if _is_readable(hook_pidfd, EXIT_SECONDS):
                _redefine(connection, guest, config, prepared)
                if may_start:
                    _start(connection, guest)
    except PaprHookError as error:
        journal.log(journal.ERROR, f"guest '{guest.name}': {error}")
    except BaseException as error:
        journal.log(journal.ERROR, f"guest '{guest.name}': unexpected {type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _connect(stack: contextlib.ExitStack, guest: RefusedGuest, config: Config) -> Connection:
    """Connect to libvirt; again and again for a guest on autostart, whose host may still make libvirt's sockets."""
    deadline = time.monotonic() + (0 if guest.autostart is Autostart.NEVER else BOOT_SECONDS)
    while True:
        try:
            connection = stack.enter_context(connect(config.uri))
            connection.receive_events()
            return connection
        except LibvirtError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)


def _detach(keep: set[int]) -> None:
    """Daemonize, closing all descriptors except keep, and lift the limits of the hook."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    low = 3
    for descriptor in sorted(keep):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (hard, hard))


def _prepare(data: bytes, config: Config) -> adoption.Prepared | None:
    """Make the layout while the hook still runs, so that it comes before the client's next start."""
    try:
        return adoption.Prepared(data, pipeline.analyze(data, config).apply_layout())
    except LayoutError:
        return None


def _redefine(connection: Connection, guest: RefusedGuest, config: Config, prepared: adoption.Prepared | None) -> None:
    connection.wait_for_job(guest.uuid)
    result = adoption.adopt(connection, guest.uuid, config, prepared)
    if result.outcome is adoption.Outcome.REDEFINED:
        journal.log(journal.NOTICE, f"guest '{guest.name}': laid out for its next start")
        for diagnostic in result.diagnostics:
            journal.log(journal.WARNING, f"guest '{guest.name}': {diagnostic.message}")
        if result.collided:
            journal.log(journal.WARNING, f"guest '{guest.name}': {Redefinition.COLLIDED.value}")
    elif result.outcome is not adoption.Outcome.COMPLIES:
        journal.log(journal.NOTICE, f"guest '{guest.name}': not laid out: {result.outcome.value} by now")


def _start(connection: Connection, guest: RefusedGuest) -> None:
    """Start a guest whose autostart was refused, unless it runs, or is on autostart no more.

    libvirt forgets an autostart at the next boot once it has tried.
    """
    wanted = guest.autostart is Autostart.ONCE or connection.is_autostarted(guest.uuid)
    if wanted and connection.start_if_inactive(guest.uuid):
        journal.log(journal.NOTICE, f"guest '{guest.name}': started in place of its refused autostart")


def _is_readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])
