"""papr-hook plan: say what layout would do to a guest, and why."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from .. import pipeline
from ..config import Config
from ..errors import InputError, LibvirtError, PaprHookError
from ..host.bars import WINDOW_32, WINDOW_64, BarSizes, read_bars
from ..layout.diff import Cost, DeviceChange, compute_cost, explain
from ..layout.groups import group_devices
from ..layout.memlock import describe_limit
from ..layout.nic_names import NicMove
from ..model import Guest
from ..pipeline import Result
from ..virt.connection import connect
from ._io import Io
from ._options import SettingsArgs, Source, add_connect, add_settings, load_settings, resolve_source


class PlanArgs(SettingsArgs):
    """The arguments of the command."""

    sources: list[str]
    all: bool
    connect: str | None
    host_arch: str | None
    json: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "sources", nargs="*", metavar="FILE|GUEST", help="domain XML, or the name or UUID of a guest; -: standard input"
    )
    parser.add_argument("--all", action="store_true", help="all guests that are defined on the host")
    parser.add_argument("--json", action="store_true", help="print the plans as JSON")
    add_connect(parser)
    parser.add_argument("--host-arch", metavar="ARCH", help="architecture assumed if the domain XML names none")
    add_settings(parser)


def run(args: PlanArgs, io: Io) -> int:
    """Print the plan of each guest. Return 1 if one of them cannot be laid out."""
    if args.all == bool(args.sources):
        raise InputError("plan needs FILE or GUEST, or --all")
    config = load_settings(args)
    plans, failed = [], False
    for source in _read_sources(args, io, config):
        try:
            with source.errors():
                plan = _make_plan(source, config, args.host_arch)
        except PaprHookError as error:
            failed = True
            io.warn(f"papr-hook: {error}")
            continue
        if args.json:
            plans.append(plan.to_json())
        else:
            io.print(*plan.lines())
    if args.json:
        io.print(json.dumps(plans, indent=2))
    return 1 if failed else 0


def _read_sources(args: PlanArgs, io: Io, config: Config) -> Iterator[Source]:
    """Yield the domain XML of each guest. Raises PaprHookError."""
    uri = args.connect or config.uri
    if args.all:
        with connect(uri) as connection:
            for state, data in connection.read_guests():
                if isinstance(data, LibvirtError):
                    raise data
                yield Source(state.name, data)
    for name in args.sources:
        yield resolve_source(name, args.connect, uri, io)


def _make_plan(source: Source, config: Config, host_arch: str | None) -> _Plan | _Skipped:
    """Return the plan of one guest. Raises PaprHookError."""
    analysis = pipeline.analyze(source.data, config, host_arch)
    if analysis.domain.guest is None:
        return _Skipped(source, "not a pseries guest")
    guest = analysis.guest
    if guest is None:
        return _Skipped(source, "mode is keep")
    result = analysis.apply_layout()
    layout = result.layout
    if layout is None:
        return _Skipped(source, "not to be laid out")
    topology, count = analysis.topology, len(guest.devices)
    # With incomplete_pe = add, the layout has devices that the domain XML does not have.
    is_complete = len(layout.addresses) == count
    return _Plan(
        source,
        guest,
        result,
        explain(guest, layout, topology, analysis.violations()) if is_complete else (),
        compute_cost(guest, [device.address for device in guest.devices], max(len(guest.phbs), 1), topology),
        compute_cost(guest, layout.addresses[:count], len(layout.phbs), topology),
        tuple(_oversized(guest, analysis)),
    )


@dataclass(frozen=True)
class _Skipped:
    """A guest that layout does not change, and why."""

    source: Source
    reason: str

    def lines(self) -> Iterator[str]:
        """Yield the plan as text."""
        yield f"{self.source.name}: skipped: {self.reason}"

    def to_json(self) -> dict[str, object]:
        """Return the plan as JSON takes it."""
        return {"source": self.source.name, "skipped": self.reason}


@dataclass(frozen=True)
class _Plan:
    """What layout would do to one guest, what that costs, and warnings about BARs."""

    source: Source
    guest: Guest
    result: Result
    changes: tuple[DeviceChange, ...]
    before: Cost
    after: Cost
    bar_warnings: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield the plan as text."""
        yield f"{self.source.name}: {'to be laid out' if self.result.changed else 'complies'}"
        for change in self.changes:
            yield f"  {change.device}: {_move(change)}: {change.reason}{_bracketed(change)}"
        yield from (f"  {diagnostic}" for diagnostic in self.result.diagnostics)
        before, after = self.before, self.after
        yield f"  vPHBs: {_pair(before.vphbs, after.vphbs)}, empty: {_pair(before.spares, after.spares)}"
        limits = (describe_limit(cost.locked_memory) for cost in (before, after))
        yield f"  locked-memory limit: {_pair(*limits)}"
        tables = (describe_limit(cost.dma_windows) for cost in (before, after))
        yield f"  DMA window tables: {_pair(*tables)}"
        yield from self._eeh()
        yield from (f"  warning: {text}" for text in self.bar_warnings)

    def to_json(self) -> dict[str, object]:
        """Return the plan as JSON takes it."""
        return {
            "source": self.source.name,
            "skipped": None,
            "changed": self.result.changed,
            "devices": [_change_to_json(change) for change in self.changes],
            "interfaces": [_nic_to_json(move) for move in self.result.moves],
            "before": asdict(self.before),
            "after": asdict(self.after),
            "diagnostics": [self.source.to_json(diagnostic) for diagnostic in self.result.diagnostics],
            "bar_warnings": self.bar_warnings,
        }

    def _eeh(self) -> Iterator[str]:
        for label, cost in (("before", self.before), ("after", self.after)):
            for bus in cost.without_eeh:
                yield f"  EEH {label}: does not work on vPHB {bus}, which has several IOMMU groups"
        if any(device.passthrough for device in self.guest.devices) and not self.after.without_eeh:
            yield "  EEH after: works, with one IOMMU group on each vPHB"


def _nic_to_json(move: NicMove) -> dict[str, object]:
    return {
        "mac": move.mac,
        "old_address": str(move.old),
        "new_address": str(move.new),
        "old_name": move.old_name,
        "new_name": move.new_name,
        "names_are_prefixes": move.is_prefix,
    }


def _pair(before: object, after: object) -> str:
    """Return a cost before and after the layout."""
    return str(after) if before == after else f"{before} before, {after} after"


def _move(change: DeviceChange) -> str:
    if not change.moves:
        return f"stays at {change.new}"
    return f"moves from {change.device.address} to {change.new}" if change.device.address else f"gets {change.new}"


def _bracketed(change: DeviceChange) -> str:
    return f" [{change.name.value}]" if change.name is not None else ""


def _change_to_json(change: DeviceChange) -> dict[str, object]:
    old = change.device.address
    return {
        "device": change.device.name,
        "line": change.device.line,
        "old": str(old) if old is not None else None,
        "new": str(change.new),
        "moves": change.moves,
        "reason": change.reason,
        "name": change.name.value if change.name is not None else None,
    }


def _oversized(guest: Guest, analysis: pipeline.Analysis) -> Iterator[str]:
    """Yield a warning for each endpoint whose BARs do not fit into the windows of one vPHB."""
    for group in group_devices(guest, analysis.topology):
        members = [guest.devices[member] for member in group.members]
        sources = [device.source for device in members if device.source is not None]
        sizes = sum((read_bars(source, analysis.config.sysfs) for source in sources), BarSizes())
        if not sizes.fits:
            yield (
                f"{members[0]} and its endpoint need {sizes.window_64} bytes of the 64-bit window ({WINDOW_64}) and "
                f"{sizes.window_32} bytes of the 32-bit window ({WINDOW_32}) of their vPHB"
            )
