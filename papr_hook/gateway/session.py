"""One client's conversation with libvirt, without I/O: frames of both in, frames to both out.

Questions to libvirt are calls of the gateway's own on the client's connection: so libvirt answers them as it would the
client, by the same authentication, driver and rights, and there is nothing to open, to log in to, or to keep in step.
Their serials are ones that no client counts up to, and their replies stay here.
"""

from __future__ import annotations

import syslog
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from ..config import Config
from ..errors import PaprHookError
from . import protocol
from .protocol import Domain, Frame, Status, Type
from .rewrite import Call, RefusalError, Reserve, Say, Steps, UpstreamError, rewriting, what

FIRST_SERIAL = 0x80000000
"""libvirt's clients count from 1 (src/rpc/virnetclientprogram.c, src/remote/remote_driver.c)."""

CONNECT_OPEN = 1
"""Procedure of libvirt's src/remote/remote_protocol.x that lets a client in, after it has authenticated itself."""

HELD_MOST = 5
"""Calls of one client that are being rewritten, before no more is read from it: as many as libvirt itself serves at
once (max_client_requests in its libvirtd.conf)."""

PATIENCE = 30.0
"""Seconds that an attach waits for another one to the same guest; libvirt gives up on a guest's job after as many
(QEMU_JOB_WAIT_TIME in its src/qemu/qemu_domainjob.c)."""


class Reservations(Protocol):
    """Who may attach to which guest, over all clients."""

    def take(self, uuid: bytes) -> bool:
        """Reserve a guest. Returns whether nobody else has it."""

    def release(self, uuid: bytes) -> None:
        """Give a guest back; one that is not reserved too."""


@dataclass(frozen=True)
class Parcel:
    """A frame on its way, with the descriptors that follow it."""

    frame: Frame
    descriptors: Sequence[int] = ()


@dataclass
class _Held:
    """A call that is being rewritten. steps: its rewriting; guest: what it wants to reserve, or has reserved."""

    parcel: Parcel
    steps: Steps
    guest: Domain | None = None
    since: float = 0.0


class Session:
    """A conversation. to_daemon, to_client: what is to be sent to whom, in order; whoever sends it empties them.

    opened: whether libvirt has let the client in. settings: reads the host's policy; say: tells the journal; clock: a
    monotonic one, in seconds; limit: what a step of a rewriting runs in, which raises where that takes too long.
    """

    def __init__(
        self,
        load_config: Callable[[], Config],
        say: Say,
        reservations: Reservations,
        clock: Callable[[], float] = time.monotonic,
        limit: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.to_daemon: deque[Parcel] = deque()
        self.to_client: deque[Parcel] = deque()
        self.opened = False
        self._settings = load_config
        self._say = say
        self._reservations = reservations
        self._clock = clock
        self._limit = limit
        self._asked: dict[int, _Held] = {}
        self._queued: list[_Held] = []
        self._reserved: dict[int, bytes] = {}
        self._serial = FIRST_SERIAL

    @property
    def full(self) -> bool:
        """Whether nothing more should be read from the client for now."""
        return len(self._asked) + len(self._queued) >= HELD_MOST

    @property
    def waits(self) -> bool:
        """Whether a call waits for another client's reservation: then retry() is to be called now and then."""
        return bool(self._queued)

    def from_client(self, parcel: Parcel) -> None:
        """Take a frame that the client sent."""
        try:
            steps = rewriting(parcel.frame, self._settings, self._say)
        except Exception as error:
            self._give_up(parcel, error)
            return
        if steps is None:
            self.to_daemon.append(parcel)
        else:
            self._go_on(_Held(parcel, steps), None)

    def from_daemon(self, parcel: Parcel) -> None:
        """Take a frame that libvirt sent."""
        frame = parcel.frame
        if (frame.program, frame.procedure, frame.type) == (protocol.PROGRAM, CONNECT_OPEN, Type.REPLY):
            self.opened = self.opened or frame.status == Status.OK
        if frame.program != protocol.PROGRAM or frame.type not in (Type.REPLY, Type.REPLY_WITH_FDS):
            self.to_client.append(parcel)
            return
        if frame.serial in self._reserved:
            self._reservations.release(self._reserved.pop(frame.serial))
        held = self._asked.pop(frame.serial, None)
        if held is None:
            self.to_client.append(parcel)
        else:
            self._go_on(held, frame)

    def retry(self) -> None:
        """Try again to reserve the guests that calls wait for."""
        queued, self._queued = self._queued, []
        for held in queued:
            self._reserve(held)

    def _go_on(self, held: _Held, reply: Frame | None) -> None:
        """Take a rewriting on to what it needs next, or to its end."""
        call = held.parcel
        try:
            with self._limit():
                need = self._next(held, reply)
        except StopIteration as done:
            self._forward(held, done.value)
        except RefusalError as refusal:
            self._say(syslog.LOG_WARNING, str(refusal).replace("papr-hook: ", "", 1))
            self._release(held)
            self.to_client.append(Parcel(protocol.error_reply(call.frame, str(refusal)), call.descriptors))
        except Exception as error:  # whatever it is, the client must not suffer for it
            self._release(held)
            self._give_up(call, error)
        else:
            if isinstance(need, Call):
                self._ask(held, need)
            else:
                held.guest, held.since = need.guest, self._clock()
                self._reserve(held)

    def _next(self, held: _Held, reply: Frame | None) -> Call | Reserve:
        if reply is None:
            return next(held.steps)
        if reply.status != Status.OK:
            return held.steps.throw(UpstreamError(protocol.error_message(reply)))
        return held.steps.send(reply.payload)

    def _ask(self, held: _Held, question: Call) -> None:
        self._serial += 1
        self._asked[self._serial] = held
        call = protocol.frame(question.procedure, Type.CALL, self._serial, Status.OK, question.payload)
        self.to_daemon.append(Parcel(call))

    def _reserve(self, held: _Held) -> None:
        assert held.guest is not None
        if self._reservations.take(held.guest.uuid):
            self._go_on(held, None)
        elif self._clock() - held.since > PATIENCE:
            # Should both take the same vPHB, libvirt refuses the second its address.
            text = f"guest '{held.guest.name}': another attach to it does not end, and is not waited for"
            self._say(syslog.LOG_WARNING, text)
            held.guest = None
            self._go_on(held, None)
        else:
            self._queued.append(held)

    def _release(self, held: _Held) -> None:
        if held.guest is not None:
            self._reservations.release(held.guest.uuid)

    def _forward(self, held: _Held, payload: bytes) -> None:
        """Send a call on; in the very bytes where nothing changed."""
        parcel = held.parcel
        if payload != parcel.frame.payload:
            try:
                parcel = Parcel(parcel.frame.with_payload(payload), parcel.descriptors)
            except protocol.ProtocolError as error:
                self._release(held)
                self._give_up(parcel, error)
                return
        if held.guest is not None:
            self._reserved[parcel.frame.serial] = held.guest.uuid
        self.to_daemon.append(parcel)

    def _give_up(self, parcel: Parcel, error: Exception) -> None:
        """Send a call on as it is, and tell the journal why."""
        known = isinstance(error, (PaprHookError, protocol.ProtocolError, TimeoutError))
        text = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        self._say(syslog.LOG_WARNING, f"{what(parcel.frame)} goes to libvirt as it is: {text}")
        self.to_daemon.append(parcel)
