"""What other clients did to a guest while it was redefined: libvirt has no call that compares and sets.

libvirt reports each undefinition, and each definition with whether the guest was there already, so what came in
between is seen afterwards. It reports no other edit of a definition, such as an attach for the next start (libvirt's
src/qemu/qemu_driver.c).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from functools import cache
from typing import Final

try:
    import libvirt
except ImportError:  # the command works on files without it
    libvirt = None

MAX_TRIES: Final = 10
"""Layouts of one guest before giving up, where other clients redefine it each time before the layout is done."""

REDEFINED_ALL_THE_TIME: Final = "other clients redefine it all the time; try again later"

_loop = threading.Lock()
"""libvirt's event loop runs in one thread at a time (virEventRunDefaultImpl in its src/util/virevent.c)."""


class Redefinition(Enum):
    """What became of a guest that was to be redefined.

    DONE: It was redefined.
    CHANGED: It was changed before, and was not redefined.
    UNDEFINED: Another client undefined it at the same moment, and it is undefined.
    COLLIDED: It was redefined at the same moment by another client too, whose edit may be lost.
    """

    DONE = "redefined"
    CHANGED = "changed by another client"
    UNDEFINED = "undefined by another client at the same moment"
    COLLIDED = "another client redefined it at the same moment; check that its edit is there"


class DefinitionEvents:
    """The events that report which guests are defined and undefined.

    Their source is libvirt's include/libvirt/libvirt-domain.h: virDomainEventType, virDomainEventDefinedDetailType.

    They have a connection of their own. libvirt closes one whose event loop does not answer for 30 s
    (keepalive_interval in its libvirtd.conf), and this loop runs only while guests are redefined. A thread that runs
    it all the time would be woken by each call.
    """

    def __init__(self, uri: str) -> None:
        """Receive the events from now on.

        Args:
            uri: libvirt's connection URI.
        """
        _register_loop()
        self._events: dict[str, list[tuple[int, int]]] = {}
        self._connection = libvirt.open(uri)
        self._id = self._connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._record, None
        )

    def is_open(self) -> bool:
        """Return whether events still come."""
        _run_loop()  # which notices that the daemon has closed the connection
        return bool(self._connection.isAlive())

    def close(self) -> None:
        """Receive no more events."""
        with suppress(libvirt.libvirtError):
            self._connection.domainEventDeregisterAny(self._id)
        with suppress(libvirt.libvirtError):
            self._connection.close()
        _run_loop()

    @contextmanager
    def watch(self, uuid: str) -> Iterator[None]:
        """Note what happens to a guest from now on, for judge().

        Args:
            uuid: The guest's UUID.
        """
        _run_loop()
        self._events[uuid] = []
        try:
            yield
        finally:
            self._events.pop(uuid, None)

    def judge(self, uuid: str) -> Redefinition:
        """Return what became of a guest that this connection has just redefined.

        Several definitions since watch() may be in any order. Of a single one, which is the connection's own, libvirt
        says whether the guest was there. A running guest is there although it was undefined. UNDEFINED says that the
        guest was undefined before, so that it has to be undefined again.

        Args:
            uuid: The guest's UUID.
        """
        self._await_events()
        events = list(self._events[uuid])
        kinds = [event for event, _ in events]
        if kinds.count(libvirt.VIR_DOMAIN_EVENT_DEFINED) > 1:
            return Redefinition.COLLIDED
        was_absent = (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED) in events
        if was_absent or kinds == [libvirt.VIR_DOMAIN_EVENT_UNDEFINED, libvirt.VIR_DOMAIN_EVENT_DEFINED]:
            return Redefinition.UNDEFINED
        return Redefinition.DONE

    def _record(self, connection: object, domain: libvirt.virDomain, event: int, detail: int, data: object) -> None:
        events = self._events.get(str(domain.UUIDString()))
        if events is not None and event in (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED):
            events.append((event, detail))

    def _await_events(self) -> None:
        """Wait until the events of all calls that are answered have been recorded.

        The daemon queues an event before it answers the call, and sends it in the next round of its main loop. The
        answer to a second call after that comes after the event.
        """
        for _ in range(2):
            self._connection.getLibVersion()
        _run_loop()


@cache
def _register_loop() -> None:
    """Have libvirt use its own event loop for connections that are made from now on."""
    libvirt.virEventRegisterDefaultImpl()


def _run_loop() -> None:
    """Read the events that have come, and report them, without a wait."""
    with _loop:
        for _ in range(2):
            timer = libvirt.virEventAddTimeout(0, lambda timer, data: None, None)
            libvirt.virEventRunDefaultImpl()
            libvirt.virEventRemoveTimeout(timer)
