"""Lay out the guests that are defined on a host, and restore what they were."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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
from ..virt.backup import Backups
from ..virt.connection import Connection, GuestState, connect
from ..virt.redefinition import MAX_TRIES, REDEFINED_ALL_THE_TIME, Redefinition

RECONNECT_SECONDS = 30.0
"""How long a daemon that is restarted may take to answer again."""

BATCH = 16
"""Guests whose backups are written at the same time."""

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

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def guests(self, autostart: bool) -> list[str]:
        """Return the UUIDs of its guests. Raises LibvirtError."""
        return self._ask(lambda connection: connection.guests(autostart))

    def plan(self, guest: str, earlier: GuestPlan | None = None) -> GuestPlan:
        """Return what is to be done about a guest.

        Args:
            guest: Its name or UUID.
            earlier: A plan whose layout is taken. Whether the guest still has its domain XML is not asked.
        """
        state = None
        try:
            state = self._ask(lambda connection: connection.state(guest))
            return self._plan(state, earlier)
        except PaprHookError as error:
            found, name = (state.uuid, state.name) if state is not None else (guest, guest)
            return GuestPlan(found, name, Outcome.FAILED, str(error))

    def adopt(self, plans: Sequence[GuestPlan]) -> Iterator[GuestPlan]:
        """Define the layouts of guests, and yield what was done about each.

        A backup has to be on the disk, which takes as long as libvirt's own definition. So those of some guests are
        written at the same time.

        Args:
            plans: The plans of guests that change.
        """
        with ThreadPoolExecutor(BATCH) as pool:
            for start in range(0, len(plans), BATCH):
                batch = plans[start : start + BATCH]
                saved = [pool.submit(self._backups.save, plan.guest, plan.before) for plan in batch]
                done = [self._adopt(plan, backup, pool) for plan, backup in zip(batch, saved)]
                yield from (_with_backup(plan, confirmed) for plan, confirmed in done)

    def _adopt(self, plan: GuestPlan, saved: Future[None], pool: Executor) -> tuple[GuestPlan, Future[None] | None]:
        """Define the layout of a guest. Return what was done, and the writing of its backup if it was defined.

        If another client has changed the domain XML since the plan, the layout is made again.

        Args:
            plan: The plan of the guest.
            saved: The writing of its backup before the definition.
            pool: Writes the backup after it.
        """
        try:
            saved.result()
            earlier: GuestPlan | None = plan
            for _ in range(MAX_TRIES):
                again = self.plan(plan.guest, earlier)
                if again.outcome is not Outcome.CHANGE or again.result is None:
                    return again, None
                if earlier is None:
                    self._backups.save(again.guest, again.before)
                redefinition = self._redefine(again, again.result.data)
                confirmed = None
                if redefinition in (Redefinition.DONE, Redefinition.COLLIDED):
                    after = self._ask(lambda connection: connection.read_domain_xml(plan.guest))
                    confirmed = pool.submit(self._backups.confirm, plan.guest, after)
                if redefinition is Redefinition.DONE:
                    return again, confirmed
                if redefinition is not Redefinition.CHANGED:
                    return replace(again, outcome=Outcome.FAILED, reason=redefinition.value), confirmed
                earlier = None
        except PaprHookError as error:
            return replace(plan, outcome=Outcome.FAILED, reason=str(error)), None
        return replace(plan, outcome=Outcome.FAILED, reason=REDEFINED_ALL_THE_TIME), None

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
        state = self._ask(lambda connection: connection.state(guest))
        backup = self._backups.load(state.uuid)
        if backup is None:
            raise PaprHookError("there is no backup of this guest")
        if _uuid(backup.before) != state.uuid:
            raise PaprHookError("the backup is not the domain XML of this guest; it is not restored")
        current = self._ask(lambda connection: connection.read_domain_xml(state.uuid))
        if current != backup.before:
            if current != backup.after and not force:
                raise PaprHookError("changed since it was adopted; use --force to restore it nevertheless")
            redefinition = self._ask(lambda c: c.redefine_if_unchanged(state.uuid, current, backup.before))
            if redefinition is Redefinition.CHANGED:
                raise PaprHookError("changed while it was restored; try again")
            if redefinition is not Redefinition.DONE:
                raise PaprHookError(redefinition.value)
        self._backups.remove(state.uuid)
        return f"{state.name}: restored; effective at {'its next cold' if state.is_running else 'next'} start"

    def _redefine(self, plan: GuestPlan, data: bytes) -> Redefinition:
        """Define a guest's layout if the guest is still as planned."""
        return self._ask(lambda connection: connection.redefine_if_unchanged(plan.guest, plan.before, data))

    def _plan(self, state: GuestState, earlier: GuestPlan | None) -> GuestPlan:
        def skip(reason: str) -> GuestPlan:
            return GuestPlan(state.uuid, state.name, Outcome.SKIPPED, reason)

        if earlier is not None and earlier.result is not None:
            before, result = earlier.before, earlier.result
        else:
            before = self._ask(lambda connection: connection.read_domain_xml(state.uuid))
            analysis = pipeline.analyze(before, self._config)
            if analysis.domain.guest is None:
                return skip("not a pseries guest")
            if analysis.guest is None:
                return skip("mode is keep")
            if self._is_remote and self._has_host_devices(analysis.guest):
                return skip("host devices of another host; run papr-hook adopt there")
            result = analysis.apply_layout()
            if not result.changed:
                return GuestPlan(state.uuid, state.name, Outcome.COMPLIES)
        if not state.is_persistent:
            return skip("transient domain")
        if state.has_managed_save:
            return skip("managed save image; start the guest and shut it down, or remove the image")
        reason = "running; effective at its next cold start" if state.is_running else "effective at next start"
        return GuestPlan(state.uuid, state.name, Outcome.CHANGE, reason, before, result)

    def _has_host_devices(self, guest: Guest) -> bool:
        """Return whether a guest has devices that only its own host knows."""
        if any(device.passthrough for device in guest.devices):
            return True
        networks = [device.network for device in guest.devices if device.network is not None]
        return any(is_hostdev_network(xml) for xml in self._ask(lambda connection: _read_all(connection, networks)))

    def _ask(self, question: Callable[[Connection], T]) -> T:
        """Ask libvirt, once more if its daemon was restarted."""
        try:
            return question(self._connection)
        except LibvirtError:
            if self._connection.is_alive():
                raise
        self._reconnect()
        return question(self._connection)

    def _reconnect(self) -> None:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                self._stack.close()
                self._connection = self._stack.enter_context(connect(self._uri))
                return
            except LibvirtError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)


def _with_backup(plan: GuestPlan, confirmed: Future[None] | None) -> GuestPlan:
    """Return what was done about a guest, after its backup was written."""
    try:
        if confirmed is not None:
            confirmed.result()
    except PaprHookError as error:
        return replace(plan, outcome=Outcome.FAILED, reason=str(error))
    return plan


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
