"""papr-hook layout: lay out domain XML."""

from __future__ import annotations

import argparse
import difflib

from .. import files
from ..errors import InputError
from ..layout import memlock
from ..pipeline import Analysis, Result
from ._io import Io
from ._links import LinksArgs, add_links, write_links
from ._options import Source, SourceArgs, add_source, analyze, load_settings, read_source, resolve_source


class LayoutArgs(SourceArgs, LinksArgs):
    """The arguments of the command."""

    in_place: bool
    diff: bool
    previous: str | None
    verbose: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    output = parser.add_mutually_exclusive_group()
    output.add_argument("-i", "--in-place", action="store_true", help="write the result back to FILE")
    output.add_argument("--diff", action="store_true", help="print the changes instead of the result")
    parser.add_argument(
        "--previous",
        metavar="FILE|GUEST",
        help="domain XML that the guest had before; devices without an address return to where they were in it",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="report the locked-memory limit as well")
    add_links(parser)
    add_source(parser)


def run(args: LayoutArgs, io: Io) -> int:
    """Print the laid-out domain XML, or write it back. Return the exit status."""
    if args.in_place and (args.source == "-" or args.connect is not None):
        raise InputError("-i needs a FILE to write back to")
    source = read_source(args, io)
    analysis = analyze(args, source)
    previous = None
    if args.previous is not None:
        previous = resolve_source(args.previous, None, args.connect or load_settings(args).uri, io).data
    with source.errors():
        result = analysis.apply_layout(previous)
        if args.in_place and result.changed:
            files.replace(args.source, result.data)
        write_links(args, result.moves)
    if args.diff:
        io.write(_diff(source, result))
    elif not args.in_place:
        io.write(result.data)
    _report(args, io, source, analysis, result)
    return 0


def _report(args: LayoutArgs, io: Io, source: Source, analysis: Analysis, result: Result) -> None:
    """Write what the administrator should know about the layout to standard error."""
    for diagnostic in result.diagnostics:
        io.warn(source.describe(diagnostic))
    if args.verbose and result.layout is not None and analysis.guest is not None:
        io.warn(f"{source.name}: {memlock.cost(analysis.guest, analysis.topology, len(result.layout.phbs))}")


def _diff(source: Source, result: Result) -> bytes:
    """Return the changes as a unified diff, in the encoding of the domain XML."""
    old, new = (data.splitlines(True) for data in (source.data, result.data))
    name = source.name.encode("utf-8", "surrogateescape")
    lines = difflib.diff_bytes(difflib.unified_diff, old, new, name, name + b" (laid out)")
    return b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines)
