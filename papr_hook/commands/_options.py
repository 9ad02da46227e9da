"""Arguments that several commands share, and the domain XML and settings that they name."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .. import files, pipeline
from ..config import CONF, Config, load_config
from ..diagnostics import Diagnostic
from ..errors import ConfError, InputError, PaprHookError
from ..virt.connection import connect
from ._io import Io


class SettingsArgs(argparse.Namespace):
    """The arguments that add_settings() declares."""

    conf: Path | None
    spares: str | None
    sysfs: str | None


class SourceArgs(SettingsArgs):
    """The arguments that add_source() declares."""

    source: str
    connect: str | None
    host_arch: str | None


@dataclass(frozen=True)
class Source:
    """Domain XML that a command reads.

    name: what messages call it: the file, the guest, or <stdin>.
    """

    name: str
    data: bytes

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Prefix an error with the name of the source, unless it is about the configuration."""
        try:
            yield
        except ConfError:
            raise
        except PaprHookError as error:
            raise PaprHookError(f"{self.name}: {error}") from error

    def describe(self, diagnostic: Diagnostic) -> str:
        """Return a diagnostic as compilers print it: FILE:LINE: error: text [name]."""
        line = f":{diagnostic.line}" if diagnostic.line is not None else ""
        return f"{self.name}{line}: {diagnostic}"

    def print(self, diagnostics: Sequence[Diagnostic], io: Io, *, as_json: bool) -> None:
        """Print diagnostics, a line each or as a JSON array. Raises what Io.print() raises."""
        if as_json:
            io.print(json.dumps([self.to_json(diagnostic) for diagnostic in diagnostics], indent=2))
        else:
            io.print(*(self.describe(diagnostic) for diagnostic in diagnostics))

    def to_json(self, diagnostic: Diagnostic) -> dict[str, object]:
        """Return a diagnostic as JSON takes it."""
        rule = diagnostic.rule
        return {
            "source": self.name,
            "line": diagnostic.line,
            "severity": diagnostic.severity.value,
            "name": diagnostic.name.value,
            "rule": rule.value if rule is not None else None,
            "device": diagnostic.device or None,
            "text": diagnostic.text,
        }


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare FILE and what goes with it, and the settings."""
    parser.add_argument(
        "source",
        nargs="?",
        default="-",
        metavar="FILE",
        help="domain XML (default: standard input); with -c, the name or UUID of a guest",
    )
    parser.add_argument("-c", "--connect", metavar="URI", help="read a guest from libvirt at this connection URI")
    parser.add_argument(
        "--host-arch", metavar="ARCH", help="architecture assumed if the domain XML names none (default: this host's)"
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser, names: Sequence[str] = ("spares", "sysfs")) -> None:
    """Declare the configuration file and options that override its settings.

    Args:
        parser: The parser of a command.
        names: The settings, each of which becomes an option.
    """
    add_conf(parser)
    for name in names:
        field = Config.settings()[name]
        text = field.metadata["doc"].rstrip(".")
        text = f"{text[0].lower()}{text[1:]} (default: from the configuration, else {field.default})"
        parser.add_argument(f"--{name}", metavar="N" if name == "spares" else "DIR", help=text)


def add_conf(parser: argparse.ArgumentParser) -> None:
    """Declare the configuration file."""
    parser.add_argument("--conf", type=Path, metavar="FILE", help=f"configuration file (default: {CONF})")


def add_connect(parser: argparse.ArgumentParser) -> None:
    """Declare the libvirt connection of a command that always uses one."""
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt connection URI (default: the uri setting)")


def load_settings(args: SettingsArgs) -> Config:
    """Return the settings of the configuration file with those of the command line. Raises ConfError."""
    config = load_config(args.conf)
    if args.spares is not None:
        config = config.override("spares", args.spares, "--spares")
    if args.sysfs is not None:
        config = config.override("sysfs", os.path.abspath(args.sysfs), "--sysfs")
    return config


def read_source(args: SourceArgs, io: Io) -> Source:
    """Return the domain XML that the arguments name. Raises PaprHookError."""
    if args.connect is not None:
        if args.source == "-":
            raise InputError("-c needs the name of a guest")
        with connect(args.connect) as connection:
            return Source(args.source, connection.read_domain_xml(args.source))
    return _read_file(args.source, io)


def resolve_source(name: str, connect_uri: str | None, default_uri: str, io: Io) -> Source:
    """Return domain XML from a file or from libvirt.

    Args:
        name: A file, - for standard input, or the name or UUID of a guest. With a connection it is a guest. Without
            one, it is a file if that exists or if the name has a slash.
        connect_uri: The libvirt connection URI that the user gave.
        default_uri: The one to use for a guest otherwise.
        io: The standard input.

    Raises:
        PaprHookError: It cannot be read.
    """
    if connect_uri is None and (name == "-" or "/" in name or os.path.exists(name)):
        return _read_file(name, io)
    with connect(connect_uri or default_uri) as connection:
        return Source(name, connection.read_domain_xml(name))


def _read_file(name: str, io: Io) -> Source:
    """Return the domain XML in a file, or on standard input for -. Raises PaprHookError."""
    source = Source("<stdin>" if name == "-" else name, b"")
    with source.errors():
        return replace(source, data=files.read(name, io.stdin))


def analyze(args: SourceArgs, source: Source) -> pipeline.Analysis:
    """Analyze domain XML with the settings of the arguments. Raises PaprHookError."""
    config = load_settings(args)
    with source.errors():
        analysis = pipeline.analyze(source.data, config, args.host_arch)
    # --spares overrides the domain XML.
    return analysis if args.spares is None else replace(analysis, spares=config.spares)
