"""papr-hook gateway: serve libvirt's clients, and set up where they connect."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

from ..config import CONF, Config, load_config
from ..errors import ConfError, SetupError
from ..gateway.activation import bind_socket, inherited_sockets, upstream_path
from ..gateway.setup.apply import LOCK, apply, interruptible, locked
from ..gateway.setup.host import Host
from ..gateway.setup.plan import Plan, plan_disable, plan_enable
from ..journal import ERROR, WARNING, log
from ..virt.hook_files import find_hook_fault
from ._io import Io

SHARE = Path(__file__).resolve().parent.parent.parent
"""Where papr-hook is installed, with the units and the scripts that enabling links or copies."""


class GatewayArgs(argparse.Namespace):
    """The arguments of the command."""

    action: str
    listen: Path | None
    upstream: Path | None
    conf: Path | None
    check: bool
    dry_run: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    serve = actions.add_parser("serve", help="serve libvirt clients, as the service does")
    serve.add_argument(
        "--listen", type=Path, metavar="PATH", help="socket to listen on (default: sockets passed by systemd)"
    )
    serve.add_argument(
        "--upstream",
        type=Path,
        metavar="PATH",
        help="libvirt's own socket (default: upstream/NAME beside the socket that is listened on)",
    )
    serve.add_argument("--conf", type=Path, metavar="FILE", help=f"configuration file (default: {CONF})")
    serve.add_argument("--check", action="store_true", help="exit with status 0 if the gateway can be started")
    for action, summary in (
        ("enable", "put the gateway in front of libvirt's socket, and restart libvirt's daemon if that moves"),
        ("disable", "take the gateway away, and restart libvirt's daemon if its socket moves back"),
    ):
        setup = actions.add_parser(action, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        setup.add_argument("--dry-run", action="store_true", help="print each step, and change nothing")


def run(args: GatewayArgs, io: Io) -> int:
    """Run the action; serving ends with a signal."""
    if args.action == "serve":
        # Enabling must work where the gateway's modules, or lxml, do not.
        if args.check:
            from ..gateway import server, worker  # noqa: F401

            return 0
        serve(args.listen, args.upstream, args.conf)
    set_up(args.action == "enable", args.dry_run, io)
    return 0


def serve(listen: Path | None, upstream: Path | None, conf: Path | None) -> NoReturn:
    """Serve libvirt's clients until a signal ends the process.

    Args:
        listen: A socket to listen on, beside those that systemd passes.
        upstream: libvirt's own socket, or None for upstream/NAME beside the socket that is listened on.
        conf: The configuration, or None for the usual one. It is read again for each call that is rewritten.

    Raises:
        ConfError: There is no socket to listen on.
    """
    # The server loads no lxml: a process of it is there for each user, and parsing is for others.
    from ..gateway.server import Server

    _require_workers()
    try:
        upstreams = {one: upstream or upstream_path(Path(one.getsockname())) for one in inherited_sockets(os.environ)}
        if listen is not None:
            own = upstream or upstream_path(listen)
            upstreams[bind_socket(listen, like=own)] = own
    except OSError as error:
        raise ConfError(f"{error.filename or listen}: {error.strerror}") from None
    if not upstreams:
        raise ConfError("systemd passed no sockets, and --listen names none")
    fault = find_hook_fault()
    if fault is not None:
        log(WARNING, fault)
    Server(upstreams, _run_dir(conf), lambda: load_config(conf)).run()


def _require_workers() -> None:
    """Raise an error if workers could not load what they need: clients are to bypass such a gateway.

    A process that ends tries it, so that this one stays small.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            from ..gateway import worker

            status = 0
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        from ..gateway import worker  # noqa: F401


def _run_dir(conf: Path | None) -> Path:
    """Return libvirt's run directory. Clients are served even if the configuration is broken."""
    try:
        return load_config(conf).libvirt_run_dir
    except ConfError as error:
        log(ERROR, f"{error}; until this is corrected, all calls are forwarded unmodified")
        return Config().libvirt_run_dir


def set_up(enable: bool, dry_run: bool, io: Io) -> None:
    """Enable or disable the gateway on this host.

    Args:
        enable: Whether it is to be enabled.
        dry_run: Whether to print the steps only.
        io: Where to print.

    Raises:
        SetupError: It cannot be done, or failed; then nothing has changed.
    """
    if os.geteuid() != 0:
        raise SetupError("must be run as root")
    host = Host()
    with interruptible(), locked(Path(LOCK)):
        plan = plan_enable(host, SHARE) if enable else plan_disable(host, SHARE)
        if dry_run:
            io.print(*plan.describe(host))
            return
        apply(plan, host)
    io.print(*_summarize(plan, enable))


def _summarize(plan: Plan, enable: bool) -> list[str]:
    lines = [f"{daemon.name}: the gateway listens at {daemon.socket}" for daemon in plan.gated]
    for restart in plan.restarts:
        others = f", and {' '.join(restart.dependents)} with it" if restart.dependents else ""
        lines.append(f"{restart.daemon.name}: was restarted{others}; running guests are not affected")
    if not lines:
        lines = [
            "the gateway is enabled; it starts with libvirt's daemon" if enable else "the gateway is disabled",
        ]
    return lines
