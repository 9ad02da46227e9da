"""papr-hook show: draw the vPHBs of a guest and the devices on them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import InputError
from ..render import json as render_json
from ._io import Io
from ._options import SourceArgs, add_source, analyze, read_source


class ShowArgs(SourceArgs):
    """The arguments of the command."""

    long: bool
    json: bool
    svg: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "-l", "--long", action="store_true", help="add models, what backs devices on the host, and DRC indexes"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the guest as JSON")
    output.add_argument("--svg", type=Path, metavar="FILE", help="write a picture instead")
    add_source(parser)


def run(args: ShowArgs, io: Io) -> int:
    """Draw a guest. Return the exit status."""
    source = read_source(args, io)
    analysis = analyze(args, source)
    guest = analysis.domain.guest
    if guest is None:
        io.print("null" if args.json else "not a pseries guest: no vPHBs to show")
        return 0
    if args.json:
        io.print(json.dumps(render_json.describe_guest(guest, analysis.topology), indent=2))
        return 0
    # Imported late: only a drawing needs rich.
    from ..render import tree

    if args.svg is None:
        io.write(tree.draw(guest, analysis.topology, io.stdout, args.long))
        return 0
    try:
        args.svg.write_text(tree.draw_svg(guest, analysis.topology, args.long), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{args.svg}: {error.strerror}") from None
    return 0
