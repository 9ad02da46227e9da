"""What other clients did to a guest while it was redefined: libvirt has no call that compares and sets.

libvirt reports each definition with whether the guest was there already, so what came in between is seen afterwards.
It reports no other edit of a definition, such as an attach for the next start (libvirt's src/qemu/qemu_driver.c).
"""

from __future__ import annotations

import threading
from contextlib import suppress
from enum import Enum
from typing import Final

try:
    import libvirt
except ImportError:  # the command works on files without it
    libvirt = None

MAX_TRIES: Final = 10
"""Layouts of one guest before giving up, where other clients redefine it each time before the layout is done."""

REDEFINED_ALL_THE_TIME: Final = "other clients redefine it all the time; try again later"

_LOOP_SECONDS: Final = 1.0
"""How long the event loop may take to run what it was given."""

_loop = threading.Thread()


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
    """The events of a connection that report which guests are defined and undefined.

    The source of the events is virDomainEventDefinedDetailType in libvirt's include/libvirt/libvirt-domain.h.
    """

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection
        self._events: list[tuple[str, int, int]] = []
        self._id = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._record, None)

    def close(self) -> None:
        """Receive no more events."""
        with suppress(libvirt.libvirtError):
            self._connection.domainEventDeregisterAny(self._id)

    def forget(self) -> None:
        """Forget what was reported until now."""
        self._events.clear()

    def judge(self, uuid: str) -> Redefinition:
        """Return what became of a guest that this connection has just redefined.

        Several definitions since forget() may be in any order. Of a single one, which is the connection's own, libvirt
        says whether the guest was there. UNDEFINED says that it was not, so that it has to be undefined again.

        Args:
            uuid: The guest's UUID.
        """
        self._await_events()
        details = [
            detail
            for guest, event, detail in list(self._events)
            if guest == uuid and event == libvirt.VIR_DOMAIN_EVENT_DEFINED
        ]
        if len(details) > 1:
            return Redefinition.COLLIDED
        return Redefinition.UNDEFINED if details == [libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED] else Redefinition.DONE

    def _record(self, connection: object, domain: libvirt.virDomain, event: int, detail: int, data: object) -> None:
        self._events.append((str(domain.UUIDString()), event, detail))

    def _await_events(self) -> None:
        """Wait until the events of all calls that are answered have been recorded.

        The daemon queues an event before it answers the call, and sends it in the next round of its main loop. The
        answer to a second call after that comes after the event.
        """
        for _ in range(2):
            self._connection.getLibVersion()
        for _ in range(2):
            _await_loop()


def start_event_loop() -> None:
    """Run libvirt's event loop in a thread, unless this process does so. Must be called before a connection is made."""
    global _loop
    if _loop.is_alive():
        return
    libvirt.virEventRegisterDefaultImpl()
    _loop = threading.Thread(target=_run_loop, daemon=True)
    _loop.start()


def _run_loop() -> None:
    with suppress(libvirt.libvirtError):
        while True:
            libvirt.virEventRunDefaultImpl()


def _await_loop() -> None:
    """Wait until the event loop has run what was due."""
    ran = threading.Event()
    timer = libvirt.virEventAddTimeout(0, lambda timer, data: ran.set(), None)
    ran.wait(_LOOP_SECONDS)
    libvirt.virEventRemoveTimeout(timer)
