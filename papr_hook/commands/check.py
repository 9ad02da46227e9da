"""papr-hook check: report violations of the layout rules."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .. import schema
from ..diagnostics import Diagnostic, Name
from ..layout.check import complies
from ..pipeline import Analysis
from ._io import Io
from ._options import SourceArgs, add_source, analyze, read_source


class CheckArgs(SourceArgs):
    """The arguments of the command."""

    strict: bool
    schema: bool
    json: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--strict", action="store_true", help="treat too few spare vPHBs as an error")
    parser.add_argument("--json", action="store_true", help="print the diagnostics as JSON")
    parser.add_argument(
        "--schema", action="store_true", help="validate against the XML Schema instead (ignores IOMMU groups)"
    )
    add_source(parser)


def run(args: CheckArgs, io: Io) -> int:
    """Print the diagnostics of a guest. Return 1 if one of them is an error."""
    source = read_source(args, io)
    analysis = analyze(args, source)
    with source.errors():
        diagnostics = _diagnose(args, analysis)
    source.print(diagnostics, io, as_json=args.json)
    if not diagnostics and not args.json:
        io.print(_all_clear(analysis))
    return 0 if complies(diagnostics) else 1


def _diagnose(args: CheckArgs, analysis: Analysis) -> Sequence[Diagnostic]:
    if analysis.guest is None:
        return ()
    if args.schema:
        return schema.violations(analysis.domain.data)
    diagnostics = analysis.violations()
    if not args.strict:
        return diagnostics
    return [found.as_error() if found.name is Name.TOO_FEW_SPARES else found for found in diagnostics]


def _all_clear(analysis: Analysis) -> str:
    if analysis.domain.guest is None:
        return "not a pseries guest: nothing to check"
    return "complies" if analysis.guest is not None else "mode is keep: not checked"
