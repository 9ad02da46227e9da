"""Guests that libvirt has already, laid out and defined again for their next start."""

from __future__ import annotations

from . import pipeline
from .config import Config
from .virt.connection import Connection


def adopt(connection: Connection, guest: str, config: Config) -> tuple[str, bool]:
    """Lay out one guest's definition and define it.

    connection: to its host; guest: its name or UUID; policy: the host's. Returns a line that
    says what was done, and whether the definition was changed. Raises LibvirtError, InputError
    or LayoutError, and then nothing was defined.
    """
    analysis = pipeline.analyze(connection.definition(guest), config)
    name = analysis.domain.guest.name if analysis.domain.guest is not None else guest
    if analysis.domain.guest is None:
        return f"{guest}: not a pseries guest, left alone", False
    if analysis.opted_out:
        return f"{name}: mode is keep, left alone", False
    result = analysis.apply_layout()
    if not result.changed:
        return f"{name}: complies", False
    if not connection.is_persistent(guest):
        return f"{name}: is transient, so it has no definition to change", False
    connection.define(result.data)
    return f"{name}: laid out for its next start", True
