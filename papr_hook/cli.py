"""The command line: arguments to a command, and errors to an exit status and one line."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO, NoReturn, TextIO

from . import __version__
from .commands import COMMANDS
from .errors import PaprHookError

OK, FAILED, INTERRUPTED = 0, 2, 130

EXAMPLES = """\
examples:
  papr-hook show guest.xml
  papr-hook layout guest.xml | virsh define /dev/stdin
  papr-hook check -c qemu:///system guest
  papr-hook adopt --dry-run
"""

PACKAGES = {"lxml": "python3-lxml", "rich": "python3-rich", "libvirt": "python3-libvirt"}
"""The distribution packages of Python packages that may be missing."""


def main(argv: Sequence[str], stdin: BinaryIO, stdout: TextIO) -> int:
    """Run a command.

    Args:
        argv: Its name and arguments.
        stdin: What it reads for "-".
        stdout: Where it prints.

    Returns:
        The exit status: 0 for success; 1 if check or doctor found an error, or adopt or plan failed for a guest; 2 if
        the command failed. Standard error then has one line.
    """
    try:
        from .commands._io import Io

        args = _build_parser(argv).parse_args(argv)
        return int(args.run(args, Io(stdin, stdout)))
    except PaprHookError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in PACKAGES:
            raise
        _fail(f"the Python package {package} is not installed; install {PACKAGES[package]}")
    return FAILED


def run() -> NoReturn:
    """Run the command of this process and exit."""
    _open_standard_streams()
    try:
        status = _run()
    except BrokenPipeError:
        # The reader, such as head, needs no more, and a message would only disturb it.
        status = FAILED
    except OSError as error:
        _fail(f"standard output: {error.strerror}")
        status = FAILED
    except KeyboardInterrupt:
        status = INTERRUPTED
    # The interpreter would try once more to write what standard output did not take.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(status)


def _run() -> int:
    """Run the command and return its exit status once standard output has everything."""
    try:
        status = main(sys.argv[1:], sys.stdin.buffer, sys.stdout)
    except SystemExit as exited:  # by argparse, after --help or a usage error
        status = int(exited.code or 0)
    if status != FAILED:
        sys.stdout.flush()
    return status


def _open_standard_streams() -> None:
    """Give closed standard streams a descriptor, and make sure that any text can be printed.

    Otherwise the next file that is opened becomes standard output or standard error. A closed standard input cannot
    be read and a closed standard output cannot be written, which is reported like other errors.
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        # A guest's name may have characters that the terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(text: str) -> None:
    """Write an error as one line to standard error, if that is open."""
    # print() would write to standard output if sys.stderr is None.
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"papr-hook: {' '.join(text.split())}", file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """ArgumentParser that reports usage errors on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: {message}; see {self.prog} --help\n")


def _build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the arguments of the one that argv names."""
    parser = _Parser(
        prog="papr-hook",
        description="Give each PCI device of a pseries guest, and each passed-through endpoint, a virtual PCI host "
        "bridge (vPHB) of its own.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    # The options before the command take no value.
    chosen = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            module = importlib.import_module(f".commands.{name}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
