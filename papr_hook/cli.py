"""The command: lay out, check and show definitions, and adopt the guests of a host."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NoReturn, TextIO

from . import __version__, adopt, files, pipeline, schema
from .commands.attach import attach_device
from .config import CONF, Config, load_config
from .diagnostics import Diagnostic, Name, Severity
from .errors import ConfError, InputError, LayoutError, PaprHookError
from .layout import check, memlock
from .render import tree
from .virt.connection import connect
from .virt.flags import AffectFlag

EXAMPLES = """\
examples:
  papr-hook show guest.xml
  papr-hook layout guest.xml | virsh define /dev/stdin
  papr-hook check -c qemu:///system guest
  papr-hook adopt
"""


def main(argv: Sequence[str], stdin: BinaryIO, stdout: TextIO) -> int:
    """Run the command.

    argv: its arguments, without its name; stdin, stdout: where - reads and what it prints to.
    Returns the exit status: 0, 1 where a check finds something, 2 with one line on stderr.
    """
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options, stdin, stdout))
    except PaprHookError as error:
        print(f"papr-hook: {_where(options)}{error}", file=sys.stderr)
        return 2


def run() -> NoReturn:
    """The papr-hook command itself."""
    try:
        status = main(sys.argv[1:], sys.stdin.buffer, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="papr-hook",
        description="The PCI layout that PAPR wants for pseries guests of libvirt: each device, "
        "and each host endpoint, on a vPHB of its own.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    layout = _command(commands, "layout", _layout, "print a definition laid out")
    layout.add_argument("-i", "--in-place", action="store_true", help="write it back to FILE")
    layout.add_argument("--diff", action="store_true", help="print what would change instead")
    checking = _command(commands, "check", _check, "say where a definition breaks which rule")
    checking.add_argument("--strict", action="store_true", help="too few spares are an error too")
    checking.add_argument(
        "--schema", action="store_true", help="judge by the contract as an XML schema, which knows no host groups"
    )
    _command(commands, "show", _show, "draw a definition as a tree of vPHBs")
    adopting = commands.add_parser(
        "adopt",
        help="lay out the guests that libvirt has, for their next start",
        description="Read guests from libvirt, lay them out, and define them again.",
    )
    adopting.set_defaults(run=_adopt, source=None)
    adopting.add_argument("guests", nargs="*", metavar="GUEST", help="which (default: all)")
    adopting.add_argument("-c", "--connect", metavar="URI", help="libvirt's (default: uri)")
    _policy_options(adopting)
    _gateway_commands(commands)
    return parser


def _gateway_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    attaching = commands.add_parser(
        "attach",
        help="attach a device to a guest, on a vPHB of its own",
        description="Attach a device to a guest, on an empty vPHB or, with the rest of its endpoint, on that one's.",
    )
    attaching.set_defaults(run=_attach, source=None, spares=None, sysfs=None)
    attaching.add_argument("guest", metavar="GUEST", help="its name or UUID")
    attaching.add_argument("file", nargs="?", default="-", metavar="FILE", help="the device; -: standard input")
    attaching.add_argument("--live", action="store_true", help="to the running guest")
    attaching.add_argument("--config", action="store_true", help="to the definition of its next start")
    attaching.add_argument("-c", "--connect", metavar="URI", help="libvirt's (default: uri)")
    serving = commands.add_parser(
        "gateway",
        help="lay out definitions on their way to libvirt",
        description="Serve libvirt's clients, and lay out definitions on their way to libvirt.",
    )
    serving.set_defaults(run=_gateway, source=None)
    serving.add_argument("--listen", type=Path, metavar="PATH", help="where clients come (default: systemd's sockets)")
    serving.add_argument(
        "--upstream", type=Path, metavar="PATH", help="libvirt's own socket (default: upstream/NAME beside it)"
    )
    for command in (attaching, serving):
        command.add_argument("--conf", type=Path, metavar="FILE", help=f"default: {CONF}")


def _command(
    commands: argparse._SubParsersAction[_Parser], name: str, run: object, help_text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
    command.set_defaults(run=run)
    command.add_argument(
        "source",
        nargs="?",
        default="-",
        metavar="FILE",
        help="a definition; - or nothing: standard input; with -c: a guest",
    )
    command.add_argument("-c", "--connect", metavar="URI", help="read a guest from libvirt")
    command.add_argument("--host-arch", metavar="ARCH", help="the host's architecture (default: this host's)")
    _policy_options(command)
    return command


def _policy_options(command: argparse.ArgumentParser) -> None:
    table = Config.settings()
    command.add_argument("--conf", type=Path, metavar="FILE", help=f"default: {CONF}")
    for name in ("spares", "sysfs"):
        field = table[name]
        text = f"{field.metadata['doc']} (default: {field.default}, or what the conf says)"
        command.add_argument(f"--{name}", metavar="N" if name == "spares" else "DIR", help=text)


def _policy(options: argparse.Namespace) -> Config:
    found = load_config(options.conf)
    if options.spares is not None:
        found = found.override("spares", options.spares, "--spares")
    if options.sysfs is not None:
        found = found.override("sysfs", os.path.abspath(options.sysfs), "--sysfs")
    return found


def _where(options: argparse.Namespace) -> str:
    """What an error is about, as far as the arguments tell."""
    error = sys.exc_info()[1]
    if isinstance(error, ConfError) or options.source is None:
        return ""
    if options.connect is not None:
        return f"{options.source}: "
    return "standard input: " if options.source == "-" else f"{options.source}: "


def _judge(options: argparse.Namespace, stdin: BinaryIO) -> pipeline.Analysis:
    config = _policy(options)
    if options.connect is None:
        data = files.read(options.source, stdin)
    else:
        if options.source == "-":
            raise InputError("-c needs the name of a guest")
        with connect(options.connect) as connection:
            data = connection.definition(options.source)
    analysis = pipeline.analyze(data, config, options.host_arch)
    if options.spares is not None:
        # What is said on the command line counts more than what the definition asks for.
        analysis = replace(analysis, spares=config.spares)
    return analysis


def _layout(options: argparse.Namespace, stdin: BinaryIO, stdout: TextIO) -> int:
    if options.in_place and (options.source == "-" or options.connect is not None):
        raise InputError("-i needs a FILE to write back to")
    analysis = _judge(options, stdin)
    result = analysis.apply_layout()
    notes = [str(diagnostic) for diagnostic in result.diagnostics]
    if result.changed and result.layout is not None and analysis.guest is not None:
        notes.append(memlock.cost(analysis.guest, analysis.topology, len(result.layout.phbs)))
    for note in notes:
        print(f"papr-hook: {_where(options)}{note}", file=sys.stderr)
    if options.diff:
        stdout.writelines(_diff(analysis.domain.data, result.data, options.source))
    if options.in_place:
        if result.changed:
            files.replace(options.source, result.data)
    elif not options.diff:
        _write(stdout, result.data)
    return 0


def _diff(before: bytes, after: bytes, name: str) -> list[str]:
    if before == after:
        return []
    old, new = (part.decode("utf-8", "replace").splitlines(True) for part in (before, after))
    lines = difflib.unified_diff(old, new, name, f"{name} (laid out)")
    return [line if line.endswith("\n") else f"{line}\n" for line in lines]


def _write(stdout: TextIO, data: bytes) -> None:
    """Print a definition, in the very bytes where stdout has room for bytes."""
    stdout.flush()
    if isinstance(stdout, io.TextIOWrapper):
        stdout.buffer.write(data)
        stdout.buffer.flush()
    else:
        stdout.write(data.decode("utf-8", "replace"))


def _check(options: argparse.Namespace, stdin: BinaryIO, stdout: TextIO) -> int:
    analysis = _judge(options, stdin)
    if analysis.domain.guest is None:
        print("not a pseries guest: nothing to check", file=stdout)
        return 0
    if analysis.opted_out:
        print("mode is keep: not checked", file=stdout)
        return 0
    if options.schema:
        return _report(options, schema.violations(analysis.domain.data), stdout)
    found = analysis.violations()
    if options.strict:
        found = tuple(
            replace(one, severity=Severity.ERROR) if one.name is Name.TOO_FEW_SPARES else one for one in found
        )
    return _report(options, found, stdout)


def _report(options: argparse.Namespace, diagnostics: Sequence[Diagnostic], stdout: TextIO) -> int:
    """Print findings as a compiler does, and return the exit status."""
    source = "<stdin>" if options.source == "-" else options.source
    for diagnostic in diagnostics:
        line = f":{diagnostic.line}" if diagnostic.line is not None else ""
        print(f"{source}{line}: {diagnostic}", file=stdout)
    if not diagnostics:
        print("complies", file=stdout)
    return 0 if check.complies(diagnostics) else 1


def _show(options: argparse.Namespace, stdin: BinaryIO, stdout: TextIO) -> int:
    # rich is needed by this command alone, and takes longer to load than the others run.

    analysis = _judge(options, stdin)
    if analysis.domain.guest is None:
        print("not a pseries guest: no vPHBs to show", file=stdout)
        return 0
    tree.show(analysis.domain.guest, analysis.topology, stdout)
    with contextlib.suppress(LayoutError):
        made = analysis.apply_layout().layout
        phbs = made.phbs if made is not None else analysis.domain.guest.phbs
        print(memlock.cost(analysis.domain.guest, analysis.topology, len(phbs)), file=stdout)
    return 0


def _adopt(options: argparse.Namespace, stdin: BinaryIO, stdout: TextIO) -> int:
    config = _policy(options)
    status = 0
    with connect(options.connect or config.uri) as connection:
        for guest in options.guests or connection.guests():
            try:
                line, _ = adopt.adopt(connection, guest, config)
                print(line, file=stdout)
            except PaprHookError as error:
                print(f"papr-hook: {guest}: {error}", file=sys.stderr)
                status = 2
    return status


def _attach(options: argparse.Namespace, stdin: BinaryIO, stdout: TextIO) -> int:
    config = _policy(options)
    flags = (AffectFlag.LIVE if options.live else 0) | (AffectFlag.CONFIG if options.config else 0)
    device = files.read(options.file, stdin)
    with connect(options.connect or config.uri) as connection:
        placement = attach_device(connection, options.guest, device, flags, config)
    if placement.missing is not None:
        print(f"papr-hook: {options.guest}: {placement.missing}; attach these as well", file=sys.stderr)
    print(f"{options.guest}: attached{f' on {placement.place}' if placement.place else ''}", file=stdout)
    return 0


def _gateway(options: argparse.Namespace, stdin: BinaryIO, stdout: TextIO) -> int:
    from .gateway.command import gateway

    gateway(options.listen, options.upstream, options.conf)
