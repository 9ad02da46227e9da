"""The .link files that keep the names of network interfaces which a layout moves."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from ..layout.nic_names import NicMove, link_file, link_file_name

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NAME = re.compile(r"[^\s/:%=]{1,15}")
"""A name that Linux takes (dev_valid_name in its net/core/dev.c, IFNAMSIZ), and systemd.link(5) does not expand."""


class LinksArgs(argparse.Namespace):
    """The arguments that add_links() declares."""

    links: Path | None
    link_name: list[tuple[str, str]]


def add_links(parser: argparse.ArgumentParser) -> None:
    """Declare --links and --link-name."""
    parser.add_argument(
        "--links",
        type=Path,
        metavar="DIR",
        help="write a .link file for each network interface that gets another name, to keep the old one in the guest",
    )
    parser.add_argument(
        "--link-name",
        type=_link_name,
        action="append",
        default=[],
        metavar="MAC=NAME",
        help="name that the .link file of an interface has; needed for a passed-through interface",
    )


def write_links(args: LinksArgs, moves: Iterable[NicMove], subdirectory: str = ".") -> None:
    """Write the .link files of the interfaces that a layout moves, if --links is given.

    A passed-through interface, and one that was behind a bridge, has a file only if --link-name has its name.

    Args:
        args: The arguments.
        moves: The interfaces.
        subdirectory: The directory below that of --links.

    Raises:
        InputError: A file cannot be written, or --links is missing.
    """
    if args.links is None:
        if args.link_name:
            raise InputError("--link-name needs --links")
        return
    names = dict(args.link_name)
    files = {}
    for move in moves:
        name = names.get(move.mac) or (None if move.is_prefix else move.old_name)
        if name is not None:
            files[link_file_name(move.mac)] = link_file(move.mac, name)
    directory = args.links / subdirectory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (directory / file).write_text(text)
    except OSError as error:
        raise InputError(f"--links: {error.filename}: {error.strerror}") from None


def _link_name(text: str) -> tuple[str, str]:
    """Return the MAC address and the name of MAC=NAME."""
    mac, _, name = text.partition("=")
    if not _MAC.fullmatch(mac.lower()) or not _NAME.fullmatch(name) or name in (".", ".."):
        raise argparse.ArgumentTypeError(f"{text!r} is not MAC=NAME, such as 52:54:00:12:34:56=enp0s1")
    return mac.lower(), name
