"""Lay out the guests that are defined on a host, and restore what they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from .. import pipeline
from ..config import Config
from ..domainxml.text import parse
from ..errors import LibvirtError, PaprHookError
from ..host.networks import is_hostdev_network
from ..model import Guest
from ..pipeline import Result
from ..virt.backup import Backups, NewBackup
from ..virt.connection import Connection, GuestState, connect
from ..virt.redefinition import MAX_TRIES, REDEFINED_ALL_THE_TIME, Redefinition

RECONNECT_SECONDS = 30.0
"""How long a daemon that is restarted may take to answer again."""

WORKERS = 4
"""Guests at the same time. While libvirt defines one, the backups of others are written, and it is asked for others."""

_POLL_SECONDS = 0.2

T = TypeVar("T")


class Outcome(Enum):
    """What becomes of a guest."""

    CHANGE = "change"
    COMPLIES = "complies"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class GuestPlan:
    """What adopt does about one guest.

    Attributes:
        guest: Its UUID, or what the user called it if libvirt does not know it.
        name: Its name.
        outcome: Whether it is laid out.
        reason: Why it is skipped or cannot be laid out, and when a change takes effect.
        before: Its domain XML.
        result: Its layout.
    """

    guest: str
    name: str
    outcome: Outcome
    reason: str = ""
    before: bytes = b""
    result: Result | None = None


class Host:
    """A host whose guests are adopted. Its daemon may restart in between."""

    def __init__(self, uri: str, config: Config, backups: Backups) -> None:
        self._uri = uri
        self._config = config
        self._backups = backups
        self._stack = ExitStack()
        self._connection = self._stack.enter_context(connect(uri))
        self._is_remote = bool(urlsplit(uri).hostname)
        self._reconnecting = threading.Lock()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, autostart: bool) -> list[tuple[GuestState, bytes | LibvirtError]]:
        """Return its guests with their domain XML. Raises LibvirtError."""
        return self._ask(lambda connection: connection.read_guests(autostart))

    def plan_named(self, guest: str) -> GuestPlan:
        """Return what is to be done about a guest.

        Args:
            guest: Its name or UUID.
        """
        try:
            state = self._state(guest)
        except LibvirtError as error:
            return GuestPlan(guest, guest, Outcome.FAILED, str(error))
        try:
            return self.plan(state, self._ask(lambda connection: connection.read_domain_xml(state.uuid)))
        except LibvirtError as error:
            return GuestPlan(state.uuid, state.name, Outcome.FAILED, str(error))

    def plan(self, state: GuestState, before: bytes | LibvirtError) -> GuestPlan:
        """Return what is to be done about a guest.

        Args:
            state: What libvirt knows about it.
            before: Its domain XML, or why libvirt does not return it.
        """

        def unchanged(outcome: Outcome, reason: str = "") -> GuestPlan:
            return GuestPlan(state.uuid, state.name, outcome, reason)

        if isinstance(before, LibvirtError):
            return unchanged(Outcome.FAILED, str(before))
        try:
            analysis = pipeline.analyze(before, self._config)
            if analysis.domain.guest is None:
                return unchanged(Outcome.SKIPPED, "not a pseries guest")
            if analysis.guest is None:
                return unchanged(Outcome.SKIPPED, "mode is keep")
            if self._is_remote and self._has_host_devices(analysis.guest):
                return unchanged(Outcome.SKIPPED, "host devices of another host; run papr-hook adopt there")
            result = analysis.apply_layout()
        except PaprHookError as error:
            return unchanged(Outcome.FAILED, str(error))
        if not result.changed:
            return unchanged(Outcome.COMPLIES)
        return _plan_change(state, before, result)

    def adopt(self, plans: Sequence[GuestPlan]) -> Generator[GuestPlan, None, None]:
        """Define the layouts of guests, and yield what was done about each.

        Closing it completes the guests that were begun, and begins no others.

        Args:
            plans: The plans of guests that change.
        """
        # A password is asked for now if it has to be, and not amid the progress.
        self._ask(lambda connection: connection.receive_events())
        with self._backups.lock(), ThreadPoolExecutor(WORKERS) as pool:
            yield from pool.map(self._adopt, plans)

    def _adopt(self, plan: GuestPlan) -> GuestPlan:
        """Define the layout of a guest, and return what was done."""
        try:
            with self._backups.replace(plan.guest) as backup:
                return self._redefine(plan, backup)
        except PaprHookError as error:
            return replace(plan, outcome=Outcome.FAILED, reason=str(error))

    def _redefine(self, plan: GuestPlan, backup: NewBackup) -> GuestPlan:
        """Define the layout of a guest, and return what was done.

        If another client has changed the domain XML since the plan, the layout is made again.

        Raises:
            PaprHookError: The backup cannot be written, or libvirt refused a call.
        """
        for _ in range(MAX_TRIES):
            result = plan.result
            if plan.outcome is not Outcome.CHANGE or result is None:
                return plan
            backup.save(plan.before)
            plan = _plan_change(self._state(plan.guest), plan.before, result)
            if plan.outcome is not Outcome.CHANGE:
                return plan
            redefinition, after = self._define(plan, result.data, backup)
            if redefinition is Redefinition.DONE:
                backup.confirm(after)
                return plan
            if redefinition is not Redefinition.CHANGED:
                raise LibvirtError(redefinition.value)
            again = self.plan_named(plan.guest)
            if again.outcome is Outcome.COMPLIES and backup.is_kept:
                return plan  # the daemon ended after it had defined the layout
            plan = again
        raise LibvirtError(REDEFINED_ALL_THE_TIME)

    def _define(self, plan: GuestPlan, data: bytes, backup: NewBackup) -> tuple[Redefinition, bytes]:
        """Define the layout of a guest that is still as planned.

        It counts as changed if the daemon ends meanwhile, since only another look tells whether it is. An error may
        also come after the definition. So the backup is kept until it is known that nothing was defined.
        """
        connection = self._connection
        backup.keep()
        try:
            redefinition, after = connection.redefine_if_unchanged(plan.guest, plan.before, data)
        except LibvirtError:
            if connection.is_alive():
                if self._ask(lambda c: c.read_domain_xml(plan.guest)) == plan.before:
                    backup.drop()
                raise
            self._reconnect(connection)
            return Redefinition.CHANGED, b""
        if redefinition in (Redefinition.CHANGED, Redefinition.UNDEFINED):
            backup.drop()
        return redefinition, after

    def restore(self, guest: str, force: bool) -> str:
        """Define the domain XML that a guest had before it was adopted.

        Args:
            guest: Its name or UUID.
            force: Whether to do so even if the guest was changed since.

        Returns:
            What was done, as a line.

        Raises:
            PaprHookError: The guest was not adopted, was changed since, or libvirt does not define it.
        """
        with self._backups.lock():
            return self._restore(guest, force)

    def _restore(self, guest: str, force: bool) -> str:
        state = self._state(guest)
        current = self._ask(lambda connection: connection.read_domain_xml(state.uuid))
        backup = self._backups.load(state.uuid, current)
        if backup is None:
            raise PaprHookError("there is no backup of this guest")
        if _uuid(backup.before) != state.uuid:
            raise PaprHookError("the backup is not the domain XML of this guest; it is not restored")
        if current != backup.before:
            if not backup.is_laid_out(current) and not force:
                raise PaprHookError("changed since it was adopted; use --force to restore it nevertheless")
            redefinition, _ = self._ask(lambda c: c.redefine_if_unchanged(state.uuid, current, backup.before))
            if redefinition is Redefinition.CHANGED:
                raise PaprHookError("changed while it was restored; try again")
            if redefinition is not Redefinition.DONE:
                raise PaprHookError(redefinition.value)
        self._backups.remove(state.uuid)
        return f"{state.name}: restored; effective at {'its next cold' if state.is_running else 'next'} start"

    def _state(self, guest: str) -> GuestState:
        return self._ask(lambda connection: connection.state(guest))

    def _has_host_devices(self, guest: Guest) -> bool:
        """Return whether a guest has devices that only its own host knows."""
        if any(device.passthrough for device in guest.devices):
            return True
        networks = [device.network for device in guest.devices if device.network is not None]
        return any(is_hostdev_network(xml) for xml in self._ask(lambda connection: _read_all(connection, networks)))

    def _ask(self, question: Callable[[Connection], T]) -> T:
        """Ask libvirt, once more if its daemon was restarted."""
        connection = self._connection
        try:
            return question(connection)
        except LibvirtError:
            if connection.is_alive():
                raise
        return question(self._reconnect(connection))

    def _reconnect(self, lost: Connection) -> Connection:
        """Return another connection than a lost one, which another thread may have made."""
        deadline = time.monotonic() + RECONNECT_SECONDS
        with self._reconnecting:
            while self._connection is lost:
                try:
                    self._connection = self._stack.enter_context(connect(self._uri))
                except LibvirtError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_POLL_SECONDS)
            return self._connection


def _plan_change(state: GuestState, before: bytes, result: Result) -> GuestPlan:
    """Return the plan to lay out a guest, unless its state forbids that."""

    def plan(outcome: Outcome, reason: str) -> GuestPlan:
        return GuestPlan(state.uuid, state.name, outcome, reason, before, result)

    if not state.is_persistent:
        return plan(Outcome.SKIPPED, "transient domain")
    if state.has_managed_save:
        return plan(Outcome.SKIPPED, "managed save image; start the guest and shut it down, or remove the image")
    if state.is_running:
        return plan(Outcome.CHANGE, "running; effective at its next cold start")
    return plan(Outcome.CHANGE, "effective at next start")


def _read_all(connection: Connection, networks: list[str]) -> list[bytes]:
    return [connection.network_xml(name) for name in networks]


def direct_uri(uri: str, config: Config) -> str:
    """Return the URI of libvirt itself if the gateway is in front of it.

    The gateway would lay out again what is restored.

    Args:
        uri: The libvirt connection URI.
        config: The settings, which have libvirt's run directory.
    """
    if uri != "qemu:///system":
        return uri
    return next((f"{uri}?socket={socket}" for socket in _upstream_sockets(config.libvirt_run_dir)), uri)


def _uuid(domain_xml: bytes) -> str:
    """Return the UUID in domain XML. Raises InputError."""
    return (parse(domain_xml).getroot().findtext("uuid") or "").strip()


def _upstream_sockets(directory: Path) -> Iterator[Path]:
    sockets = (directory / "upstream" / name for name in ("virtqemud-sock", "libvirt-sock"))
    return (socket for socket in sockets if socket.exists())
