"""papr-hook show: draw the vPHBs of a guest and the devices on them."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ..domainxml import details
from ..errors import InputError
from ..pipeline import Analysis
from ..render import json as render_json
from ..virt.connection import connect
from ._io import Io
from ._options import Source, SourceArgs, add_source, analyze, load_settings, read_source

POLL_SECONDS = 1.0
"""How often --watch reads the guest."""

_CLEAR = "\x1b[H\x1b[2J"
"""Moves to the first line of a terminal and clears it (ECMA-48 CUP and ED)."""


class ShowArgs(SourceArgs):
    """The arguments of the command."""

    long: bool
    json: bool
    svg: Path | None
    watch: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "-l", "--long", action="store_true", help="add models, what backs devices on the host, and DRC indexes"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the guest as JSON")
    output.add_argument("--svg", type=Path, metavar="FILE", help="write a picture instead")
    output.add_argument("--watch", action="store_true", help="draw a running guest again whenever it changes")
    add_source(parser)


def run(args: ShowArgs, io: Io) -> int:
    """Draw a guest. Return the exit status."""
    if args.watch:
        return _watch(args, io)
    source = read_source(args, io)
    return _show(args, io, analyze(args, source))


def _watch(args: ShowArgs, io: Io) -> int:
    """Draw a guest whenever its domain XML changes, until it is gone."""
    if args.source == "-":
        raise InputError("--watch needs the name of a guest")
    drawn = None
    with connect(args.connect or load_settings(args).uri) as connection:
        while True:
            # Without flags it is the domain XML of the running guest, if it runs.
            xml = connection.xml(args.source, 0)
            if xml != drawn:
                io.write(_CLEAR if io.stdout.isatty() else "")
                _show(args, io, analyze(args, Source(args.source, xml)))
                drawn = xml
            time.sleep(POLL_SECONDS)


def _show(args: ShowArgs, io: Io, analysis: Analysis) -> int:
    domain = analysis.domain
    if domain.guest is None:
        io.print("null" if args.json else "not a pseries guest: no vPHBs to show")
        return 0
    guest = details.read_details(domain)
    if args.json:
        io.print(json.dumps(render_json.describe_guest(guest, analysis.topology), indent=2))
        return 0
    # Imported late: only a drawing needs rich.
    from ..render import svg, tree

    if args.svg is None:
        io.write(tree.draw(guest, analysis.topology, io.stdout, args.long))
        return 0
    try:
        args.svg.write_text(svg.draw(guest, analysis.topology, args.long), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{args.svg}: {error.strerror}") from None
    return 0
