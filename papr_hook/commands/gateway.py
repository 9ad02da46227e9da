"""papr-hook gateway: serve libvirt's clients, and set up where they connect."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..config import CONF
from ..errors import SetupError
from ..gateway.setup.apply import LOCK, apply, interruptible, locked
from ..gateway.setup.host import Host
from ..gateway.setup.plan import Plan, plan_disable, plan_enable
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
        from ..gateway.command import gateway

        if not args.check:
            gateway(args.listen, args.upstream, args.conf)
        return 0
    set_up(args.action == "enable", args.dry_run, io)
    return 0


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
