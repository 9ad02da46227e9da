"""papr-hook adopt: lay out the guests that are defined on a host."""

from __future__ import annotations

import argparse

from .. import pipeline
from ..config import Config
from ..errors import PaprHookError
from ..virt.connection import Connection, connect
from ._io import Io
from ._options import SettingsArgs, add_settings, load_settings


class AdoptArgs(SettingsArgs):
    """The arguments of the command."""

    guests: list[str]
    connect: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("guests", nargs="*", metavar="GUEST", help="guests to lay out (default: all)")
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt connection URI (default: the uri setting)")
    add_settings(parser)


def run(args: AdoptArgs, io: Io) -> int:
    """Lay out guests. Return the exit status."""
    config = load_settings(args)
    status = 0
    with connect(args.connect or config.uri) as connection:
        for guest in args.guests or connection.guests():
            try:
                io.print(adopt(connection, guest, config))
            except PaprHookError as error:
                io.warn(f"papr-hook: {guest}: {error}")
                status = 2
    return status


def adopt(connection: Connection, guest: str, config: Config) -> str:
    """Lay out the domain XML of a guest and define it.

    Args:
        connection: A connection to its host.
        guest: Its name or UUID.
        config: The settings of the host.

    Returns:
        What was done, as a line.

    Raises:
        PaprHookError: The guest cannot be read, laid out or defined. Nothing was defined.
    """
    analysis = pipeline.analyze(connection.definition(guest), config)
    if analysis.domain.guest is None:
        return f"{guest}: skipped: not a pseries guest"
    name = analysis.domain.guest.name
    if analysis.guest is None:
        return f"{name}: skipped: mode is keep"
    result = analysis.apply_layout()
    if not result.changed:
        return f"{name}: complies"
    if not connection.is_persistent(guest):
        return f"{name}: skipped: transient domain"
    connection.define(result.data)
    return f"{name}: updated; effective at next start"
