"""papr-hook show: draw the vPHBs of a guest and the devices on them."""

from __future__ import annotations

import argparse

from ..render import tree
from ._io import Io
from ._options import SourceArgs, add_source, analyze, read_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_source(parser)


def run(args: SourceArgs, io: Io) -> int:
    """Draw a guest. Return the exit status."""
    source = read_source(args, io)
    analysis = analyze(args, source)
    guest = analysis.domain.guest
    if guest is None:
        io.print("not a pseries guest: no vPHBs to show")
    else:
        io.write(tree.draw(guest, analysis.topology, io.stdout))
    return 0
