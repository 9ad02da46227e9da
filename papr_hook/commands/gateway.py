"""papr-hook gateway: serve libvirt clients, and lay out the guests that they define and start."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import CONF
from ..gateway.command import gateway
from ._io import Io


class GatewayArgs(argparse.Namespace):
    """The arguments of the command."""

    listen: Path | None
    upstream: Path | None
    conf: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "--listen", type=Path, metavar="PATH", help="socket to listen on (default: sockets passed by systemd)"
    )
    parser.add_argument(
        "--upstream",
        type=Path,
        metavar="PATH",
        help="libvirt's own socket (default: upstream/NAME beside the socket that is listened on)",
    )
    parser.add_argument("--conf", type=Path, metavar="FILE", help=f"configuration file (default: {CONF})")


def run(args: GatewayArgs, io: Io) -> int:
    """Serve clients until a signal ends the process."""
    gateway(args.listen, args.upstream, args.conf)
