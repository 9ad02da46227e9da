"""docs/hosts.md and docs/costs.md: the hosts that the tests start, and what vPHBs cost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from papr_hook.layout.memlock import KIB_PER_GIB, describe_limit, limit
from papr_hook.model import Device, Guest, HostDevice, HostTopology, Memory, PciAddress
from tests.helpers.hosts_page import KINDS, NAMES, rows
from tests.helpers.paths import PROJECT

SOURCE = PciAddress(1, 1, 0, 0)
TOPOLOGY = HostTopology(devices={SOURCE: HostDevice(SOURCE)})

HEADING = "| guest's memory | host devices | 1 vPHB | 7 vPHBs | 31 vPHBs |\n|---|---|---|---|---|\n"


def cost_rows() -> Iterator[str]:
    """Yield a line for each memory size, with VFIO and without."""
    for vfio in (False, True):
        devices = (Device("<hostdev>", passthrough=True, source=SOURCE),) if vfio else ()
        for gib in (4, 16, 64, 256):
            memory = Memory(gib * KIB_PER_GIB, gib * KIB_PER_GIB)
            guest = Guest("g", devices=devices, vfio=vfio, memory=memory, is_kvm=True)
            limits = (describe_limit(limit(guest, TOPOLOGY, phbs)) for phbs in (1, 7, 31))
            yield f"| {gib} GiB | {'yes' if vfio else 'no'} | {' | '.join(limits)} |\n"


def test_the_page_lists_the_hosts() -> None:
    """The page has a row for each kind of host that the tests start, in their order, and no other."""
    assert set(NAMES) == set(KINDS)
    assert list(rows()) == list(NAMES.values())


def test_the_page_has_the_costs(request: pytest.FixtureRequest) -> None:
    """The table of locked-memory limits is made from the program; --regenerate writes it."""
    page = PROJECT / "docs/costs.md"
    before, heading, rest = page.read_text().partition(HEADING)
    made = f"{before}{heading}{''.join(cost_rows())}{rest[rest.index(chr(10) * 2) + 1 :]}"
    if request.config.getoption("--regenerate"):
        page.write_text(made)
    assert page.read_text() == made
