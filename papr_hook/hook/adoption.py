"""Lay out a guest that libvirt has defined, for its next start, without losing what other clients change meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .. import pipeline
from ..config import Config
from ..diagnostics import Diagnostic
from ..errors import LibvirtError
from ..virt.connection import Connection
from ..virt.redefinition import MAX_TRIES, REDEFINED_ALL_THE_TIME, Redefinition


class Outcome(Enum):
    """What became of a guest that was to be laid out."""

    REDEFINED = "redefined"
    COMPLIES = "complies"
    OPTED_OUT = "opted out"
    NOT_PSERIES = "not a pseries guest"
    TRANSIENT = "transient"
    UNDEFINED = "undefined"


@dataclass(frozen=True)
class Prepared:
    """A layout that was made from domain XML before libvirt could be asked for it.

    judged: the domain XML; result: what the layout made of it.
    """

    judged: bytes
    result: pipeline.Result


@dataclass(frozen=True)
class Adoption:
    """What became of a guest, and what the administrator should know about its layout.

    name: the guest's name, or the name or UUID that the caller passed. collided: whether another client redefined it at
    the same moment, so that its edit may be lost.
    """

    name: str
    outcome: Outcome
    diagnostics: tuple[Diagnostic, ...] = ()
    collided: bool = False


def adopt(connection: Connection, guest: str, config: Config, prepared: Prepared | None = None) -> Adoption:
    """Lay out a guest's domain XML and redefine the guest with it.

    The domain XML is read again right before the guest is redefined. If another client changed it, the layout is
    made again. So an edit is lost only in the window of Connection.redefine_if_unchanged(), and the result reports
    that. A guest that was undefined stays so.

    Args:
        connection: to the guest's host.
        guest: its name or UUID.
        config: the host's settings.
        prepared: a layout that is used if the guest still has the domain XML that it was made from.

    Returns:
        What was done; nothing was redefined unless that is the outcome.

    Raises:
        LibvirtError: libvirt has no such guest or refused a call, or other clients redefine the guest all the time.
        InputError: libvirt's domain XML cannot be read.
        LayoutError: no layout of the guest meets the rules.
    """
    if prepared is not None:
        done = _redefine(connection, guest, guest, prepared)
        if done is not None:
            return done
    for _ in range(MAX_TRIES):
        data = connection.read_persistent_xml(guest)
        if data is None:
            return Adoption(guest, Outcome.TRANSIENT)
        analysis = pipeline.analyze(data, config)
        if analysis.domain.guest is None:
            return Adoption(guest, Outcome.NOT_PSERIES)
        name = analysis.domain.guest.name
        if analysis.guest is None:
            return Adoption(name, Outcome.OPTED_OUT)
        result = analysis.apply_layout()
        if not result.changed:
            return Adoption(name, Outcome.COMPLIES, result.diagnostics)
        done = _redefine(connection, guest, name, Prepared(data, result))
        if done is not None:
            return done
    raise LibvirtError(REDEFINED_ALL_THE_TIME)


def _redefine(connection: Connection, guest: str, name: str, prepared: Prepared) -> Adoption | None:
    """Redefine a guest with a layout. Return None if it is not what the layout was made from."""
    redefinition, _ = connection.redefine_if_unchanged(guest, prepared.judged, prepared.result.data)
    if redefinition is Redefinition.CHANGED:
        return None
    if redefinition is Redefinition.UNDEFINED:
        return Adoption(name, Outcome.UNDEFINED)
    collided = redefinition is Redefinition.COLLIDED
    return Adoption(name, Outcome.REDEFINED, prepared.result.diagnostics, collided)
