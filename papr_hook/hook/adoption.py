"""Lay out a guest that libvirt has defined, for its next start, without losing what other clients change meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .. import pipeline
from ..config import Config
from ..diagnostics import Diagnostic
from ..errors import LibvirtError
from ..virt.connection import Connection

MAX_TRIES = 10
"""Layouts of one guest before giving up, where other clients redefine it each time before the layout is done."""


class Outcome(Enum):
    """What became of a guest that was to be laid out."""

    REDEFINED = "redefined"
    COMPLIES = "complies"
    OPTED_OUT = "opted out"
    NOT_PSERIES = "not a pseries guest"
    TRANSIENT = "transient"


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

    name: the guest's name, or what it was asked for by.
    """

    name: str
    outcome: Outcome
    diagnostics: tuple[Diagnostic, ...] = ()


def adopt(connection: Connection, guest: str, config: Config, prepared: Prepared | None = None) -> Adoption:
    """Lay out a guest's domain XML and redefine the guest with it.

    The domain XML is read again right before the guest is redefined. If another client changed it, the layout is
    made again, so that no edit is lost but in the window of Connection.redefine_if_unchanged(). A guest that was
    undefined stays so.

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
    if prepared is not None and connection.redefine_if_unchanged(guest, prepared.judged, prepared.result.data):
        return Adoption(guest, Outcome.REDEFINED, prepared.result.diagnostics)
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
        if connection.redefine_if_unchanged(guest, data, result.data):
            return Adoption(name, Outcome.REDEFINED, result.diagnostics)
    raise LibvirtError("other clients redefine it all the time; try again later")
