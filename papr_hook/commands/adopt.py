"""papr-hook adopt: lay out the guests that are defined on a host."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import InputError, PaprHookError
from ..virt.backup import DIRECTORY, Backups
from ._adoption import GuestPlan, Host, Outcome, direct_uri
from ._io import Io, OutputError
from ._links import LinksArgs, add_links, write_links
from ._options import SettingsArgs, add_connect, add_settings, load_settings

T = TypeVar("T")

PROGRESS_FROM = 20
"""The number of guests from which a terminal shows the progress."""

_ERASE = "\r\x1b[K"
"""Goes to the start of a terminal's line and erases it (ECMA-48 EL)."""


class AdoptArgs(SettingsArgs, LinksArgs):
    """The arguments of the command."""

    guests: list[str]
    connect: str | None
    autostart: bool
    yes: bool
    dry_run: bool
    undo: bool
    force: bool
    backups: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("guests", nargs="*", metavar="GUEST", help="names or UUIDs of guests (default: all)")
    add_connect(parser)
    parser.add_argument("--autostart", action="store_true", help="only the guests that libvirt starts at boot")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("-y", "--yes", action="store_true", help="do not ask before guests are changed")
    action.add_argument("-n", "--dry-run", action="store_true", help="print the plan and change nothing")
    parser.add_argument("--undo", action="store_true", help="restore the domain XML that guests had before")
    parser.add_argument("--force", action="store_true", help="with --undo: restore guests that were changed since, too")
    parser.add_argument(
        "--backups", type=Path, default=DIRECTORY, metavar="DIR", help="directory of the backups (default: %(default)s)"
    )
    add_links(parser)
    add_settings(parser)


def run(args: AdoptArgs, io: Io) -> int:
    """Lay out guests, or restore them. Return 1 if one of them failed."""
    config = load_settings(args)
    uri = args.connect or config.uri
    output = _Output(io)
    backups = Backups(args.backups)
    with Host(direct_uri(uri, config) if args.undo else uri, config, backups) as host:
        if args.undo:
            guests = args.guests or backups.guests()
            failed = _restore(args, output, host, guests)
        else:
            failed = _adopt(args, output, host)
    output.check()
    return 1 if failed else 0


def _adopt(args: AdoptArgs, output: _Output, host: Host) -> bool:
    """Plan, ask, and lay out. Return whether a guest failed."""
    planned: dict[str, GuestPlan] = {}
    for plan in _plan(args, output, host):
        if plan.guest not in planned:  # a guest may be given twice, by name and by UUID
            planned[plan.guest] = plan
            output.print_plan(plan)
    plans = list(planned.values())
    changes = [plan for plan in plans if plan.outcome is Outcome.CHANGE]
    failed = any(plan.outcome is Outcome.FAILED for plan in plans)
    output.print(_summary(plans))
    for plan in changes:
        write_links(args, plan.result.moves if plan.result is not None else (), plan.guest)
    if not changes or args.dry_run:
        return failed
    if not args.yes and not _confirm(output, len(changes)):
        return failed
    with contextlib.closing(host.adopt(changes)) as adopted:
        for done in output.progress("defining", adopted, len(changes)):
            failed |= done.outcome is Outcome.FAILED
            output.print_result(done)
    return failed


def _plan(args: AdoptArgs, output: _Output, host: Host) -> Iterator[GuestPlan]:
    """Yield what is to be done about each guest."""
    if args.guests:
        yield from map(host.plan_named, output.progress("reading", args.guests, len(args.guests)))
    else:
        guests = host.read(args.autostart)
        yield from itertools.starmap(host.plan, output.progress("reading", guests, len(guests)))


def _restore(args: AdoptArgs, output: _Output, host: Host, guests: Sequence[str]) -> bool:
    """Ask, and restore guests. Return whether one failed."""
    if not guests:
        output.print("there are no backups")
        return False
    output.print(*(f"{guest}: to be restored" for guest in guests))
    if args.dry_run or (not args.yes and not _confirm(output, len(guests))):
        return False
    failed = False
    for guest in output.progress("restoring", guests, len(guests)):
        try:
            output.print(host.restore(guest, args.force))
        except PaprHookError as error:
            failed = True
            output.fail(guest, str(error))
    return failed


def _confirm(output: _Output, number: int) -> bool:
    """Ask whether to change guests. Raises InputError if nobody can be asked."""
    guests = "1 guest" if number == 1 else f"{number} guests"
    if not sys.stdin.isatty():
        raise InputError(f"nothing was changed; pass --yes to change {guests}")
    output.io.warn_open(f"Change {guests}? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _summary(plans: Iterable[GuestPlan]) -> str:
    counts = Counter(plan.outcome for plan in plans)
    return (
        f"{counts[Outcome.CHANGE]} to change, {counts[Outcome.COMPLIES]} compliant, "
        f"{counts[Outcome.SKIPPED]} skipped, {counts[Outcome.FAILED]} failed"
    )


class _Output:
    """What adopt prints. It goes on if nobody reads it any more, because guests would be left half done."""

    def __init__(self, io: Io) -> None:
        self.io = io
        self._error: OutputError | None = None
        self._is_closed = False

    def print(self, *lines: str) -> None:
        """Print lines, unless earlier ones could not be printed."""
        if self._is_closed:
            return
        try:
            self.io.print(*lines)
        except BrokenPipeError:
            self._is_closed = True
        except OutputError as error:
            self._is_closed, self._error = True, error

    def fail(self, guest: str, text: str) -> None:
        """Write the error of a guest to standard error."""
        self.io.warn(f"papr-hook: {guest}: {text}")

    def check(self) -> None:
        """Raise the OutputError that was met on the way, if any."""
        if self._error is not None:
            raise self._error

    def print_plan(self, plan: GuestPlan) -> None:
        """Print what is to become of a guest."""
        if plan.outcome is Outcome.CHANGE and plan.result is not None:
            self.print(
                f"{plan.name}: to be laid out ({plan.reason})",
                *(f"  {diagnostic}" for diagnostic in plan.result.diagnostics),
            )
        else:
            self._print_unchanged(plan)

    def print_result(self, plan: GuestPlan) -> None:
        """Print what was done with a guest that was to be laid out."""
        if plan.outcome is Outcome.CHANGE:
            self.print(f"{plan.name}: updated ({plan.reason})")
        else:
            self._print_unchanged(plan)

    def progress(self, what: str, items: Iterable[T], total: int) -> Iterator[T]:
        """Yield items, and show on a terminal how many of them are done while the next one is made."""
        shown = total >= PROGRESS_FROM and sys.stderr is not None and sys.stderr.isatty()
        if not shown:
            yield from items
            return
        for number, item in enumerate(items, 1):
            self.io.warn_open(_ERASE)
            yield item
            done = 30 * number // total
            self.io.warn_open(f"{what} [{'#' * done}{' ' * (30 - done)}] {number}/{total}")
        self.io.warn_open(_ERASE)

    def _print_unchanged(self, plan: GuestPlan) -> None:
        if plan.outcome is Outcome.FAILED:
            self.fail(plan.name, plan.reason)
        else:
            self.print(f"{plan.name}: {plan.outcome.value}{f': {plan.reason}' if plan.reason else ''}")
