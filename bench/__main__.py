"""Measure papr-hook beside what it stands in front of, or beside the least that does the same work."""

from __future__ import annotations

import argparse
import dataclasses
import json

from bench import adopt, hook, layout
from bench.gateway import Bench
from bench.table import Row, render
from bench.ways import host_with_ways


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is measured.

    Attributes:
        rounds: How often each row is measured on each way.
        calls: Operations of one measurement of a short one.
        events: Events, a multiple of gateway.BATCH.
        mebibytes: Size of a volume.
        clients: Clients at the same time.
        seconds: How long those go on.
        guests: Guests that are listed, and adopted.
    """

    rounds: int = 15
    calls: int = 40
    events: int = 10_000
    mebibytes: int = 256
    clients: int = 500
    seconds: float = 5.0
    guests: int = 1000


SMALL = Budget(1, 2, 100, 2, 5, 0.5, 5)
"""Enough to see that everything can be measured."""


def run(budget: Budget) -> tuple[list[Row], float]:
    """Measure everything. Return the rows, and the bytes of an idle connection."""
    few = max(1, budget.rounds // 3)
    rows = [*layout.measure(budget.rounds, budget.calls), *hook.measure(budget.rounds, max(1, budget.calls // 10))]
    with host_with_ways() as (gateway, ways):
        bench = Bench(gateway, ways, budget.rounds)
        idle = bench.idle_bytes()
        rows += bench.measure_calls(budget.calls)
        bench.rounds = few
        rows.append(bench.measure_events(budget.events))
        rows += bench.measure_clients(budget.clients, budget.seconds)
        rows += bench.measure_volumes(budget.mebibytes)
        rows.append(adopt.measure(gateway.host, few, budget.guests))
        rows.append(bench.measure_list(budget.guests, budget.calls))
    return rows, idle


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rounds", type=int, default=Budget.rounds, help="how often each is measured (default: 15)")
    parser.add_argument("--small", action="store_true", help="measure a little of everything")
    parser.add_argument("--json", action="store_true", help="print seconds and bytes as JSON")
    options = parser.parse_args()
    rows, idle = run(SMALL if options.small else dataclasses.replace(Budget(), rounds=options.rounds))
    if options.json:
        print(json.dumps({"rows": [dataclasses.asdict(row) for row in rows], "idle connection": idle}, indent=2))
    else:
        print(f"{render(rows)}\nidle connection: {idle / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
