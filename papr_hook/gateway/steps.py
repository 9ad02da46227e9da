"""What a rewrite of a call yields, and how it ends.

A rewrite does no socket I/O. Where it depends on something in libvirt, it yields the call that asks for it, and is
resumed with the payload of the reply. So a socket can drive it, or a test. It reads sysfs and libvirt's network files
for the layout, as every front end does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, Union

from ..config import Config
from ..errors import PaprHookError
from ..layout.attach import AttachRefusedError
from .protocol import DomainRef, ProtocolError


@dataclass(frozen=True)
class Call:
    """A call to libvirt. The rewrite is sent the payload of its reply, or UpstreamError is raised in it."""

    procedure: int
    payload: bytes


@dataclass(frozen=True)
class LockRequest:
    """A request for the guest's attach lock, until libvirt has replied to the rewritten call."""

    guest: DomainRef


@dataclass(frozen=True)
class ForwardInTwo:
    """The end of a rewrite that forwards two other calls in place of the client's.

    The second one is rewritten like a call of the client's, once libvirt has replied to the first without an error. The
    client gets the last reply without its payload, which is that of another procedure, or the error.
    """

    first: Call
    second: Call


class UpstreamError(PaprHookError):
    """libvirt replied to a call of the gateway with an error."""


class RefusalError(PaprHookError):
    """The client gets an error instead of a reply from libvirt."""


Log = Callable[[int, str], None]
"""Writes a line of a syslog priority to the journal."""

LoadConfig = Callable[[], Config]
"""Reads the host's settings."""

_T = TypeVar("_T")

Steps = Generator[Union[Call, LockRequest], bytes, _T]
"""A part of a rewrite, which returns something."""

Rewrite = Steps[Union[bytes, ForwardInTwo]]
"""A rewrite of a call. It returns the payload that goes to libvirt. If it raises an error other than RefusalError,
the call is forwarded unchanged, and the journal gets the error."""

Rewriter = Callable[[bytes, LoadConfig, Log], Rewrite]
"""Starts the rewrite of a call with a payload."""


@contextmanager
def about(guest: str) -> Iterator[None]:
    """Have errors name a guest, and refuse an attach that cannot work."""
    try:
        yield
    except AttachRefusedError as error:
        raise RefusalError(f"guest '{guest}': {error}") from None
    except (PaprHookError, ProtocolError, TimeoutError) as error:
        raise PaprHookError(f"guest '{guest}': {error}") from error
