"""papr-hook doctor: report what is wrong with papr-hook on a host, or with a running guest."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from .. import pipeline
from ..config import Config
from ..diagnostics import Diagnostic, Name, Severity, note
from ..doctor.agent import ASK_SECONDS, judge_agent
from ..doctor.guest import MONITOR_USED, judge_guest
from ..doctor.judge import judge_gateway, judge_hook, judge_libvirt, judge_security
from ..doctor.qtree import parse_qtree
from ..doctor.read_gateway import read_gateway
from ..doctor.read_hook import read_hook
from ..doctor.read_libvirt import describe_software, read_libvirt
from ..doctor.read_security import read_security
from ..domainxml.text import parse
from ..errors import PaprHookError
from ..gateway.setup.host import Host
from ..virt.connection import Connection, connect
from ..virt.flags import XmlFlag
from ._io import Io
from ._options import SettingsArgs, Source, add_connect, add_settings, load_settings

AGENT = "org.qemu.guest_agent.0"
"""The name of the agent's channel (libvirt's docs/formatdomain.rst)."""


class DoctorArgs(SettingsArgs):
    """The arguments of the command."""

    guest: str | None
    connect: str | None
    strict: bool
    json: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "guest",
        nargs="?",
        metavar="GUEST",
        help="name or UUID of a guest to examine instead of the host; its QEMU is asked through libvirt, which marks "
        "the guest as tainted",
    )
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_connect(parser)
    add_settings(parser)


def run(args: DoctorArgs, io: Io) -> int:
    """Print what is found. Return 1 if one of the findings is an error."""
    config = load_settings(args)
    uri = args.connect or config.uri
    source = Source("host" if args.guest is None else args.guest, b"")
    findings = _examine_host(uri, config) if args.guest is None else _examine_guest(uri, args.guest, config)
    diagnostics = [
        finding.as_error() if args.strict and finding.severity is Severity.WARNING else finding for finding in findings
    ]
    source.print(diagnostics, io, as_json=args.json)
    if not args.json and all(diagnostic.severity is Severity.NOTE for diagnostic in diagnostics):
        io.print(f"{source.name}: nothing is wrong")
    return 1 if any(diagnostic.is_error for diagnostic in diagnostics) else 0


def _examine_host(uri: str, config: Config) -> Iterator[Diagnostic]:
    """Yield what is found about the host of a libvirt. Raises PaprHookError."""
    if urlsplit(uri).hostname:
        yield from judge_libvirt(read_libvirt(uri, config, is_remote=True), describe_software(), None)
        return
    if os.geteuid() != 0:
        raise PaprHookError("must be run as root")
    host = Host()
    hook = read_hook(config.libvirt_run_dir)
    # Before this connects to libvirt itself.
    gateway = read_gateway(host)
    yield from judge_libvirt(read_libvirt(uri, config, is_remote=False), describe_software(), hook)
    yield from judge_hook(hook)
    yield from judge_gateway(gateway)
    yield from judge_security(read_security(host))


def _examine_guest(uri: str, name: str, config: Config) -> Iterator[Diagnostic]:
    """Yield what is found about a guest. Raises PaprHookError."""
    with connect(uri) as connection:
        is_running = connection.state(name).is_running
        data = connection.xml(name, XmlFlag.LIVE if is_running else XmlFlag.INACTIVE)
        analysis = pipeline.analyze(data, config)
        guest = analysis.domain.guest
        if guest is None:
            yield note(Name.NOT_PSERIES, "not a pseries guest: nothing to examine")
            return
        yield from analysis.violations()
        if not is_running:
            yield note(Name.NOT_RUNNING, "the guest does not run: only its domain XML was examined")
            return
        yield from judge_guest(guest, parse_qtree(connection.run_monitor_command(name, "info qtree")))
        yield note(Name.MONITOR_USED, MONITOR_USED)
        if _has_agent(data):
            yield _ask_agent(connection, name)


def _has_agent(data: bytes) -> bool:
    """Return whether an agent in the guest is connected to its channel."""
    targets = parse(data).getroot().iterfind("devices/channel/target")
    return any(target.get("name") == AGENT and target.get("state") == "connected" for target in targets)


def _ask_agent(connection: Connection, guest: str) -> Diagnostic:
    return judge_agent(lambda command: connection.ask_agent(guest, command, int(ASK_SECONDS)))
