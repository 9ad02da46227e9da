"""The clients' sequences of tests/integration/test_client_sequences.py, on the libvirt of a second release."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.booted_host import BootedHost, started
from tests.helpers import client_sequences as sequences
from tests.helpers.installation import install

DISKS = Path("/srv/disks")


@pytest.fixture(scope="module")
def gated(roots: dict[str, Path]) -> Iterator[BootedHost]:
    """Boot Debian 13 with a gateway and disks."""
    with started(roots, "trixie") as host:
        install(host)
        files = " ".join(f"{DISKS}/{number}.raw" for number in range(12))
        host.sh(f"mkdir {DISKS}; truncate -s 1M {files}; chmod 666 {files}")
        yield host


@pytest.mark.parametrize(
    "run",
    [
        sequences.run_nixvirt,
        sequences.run_terraform,
        sequences.run_vagrant,
        sequences.run_rename,
        lambda host, disks: sequences.run_nova(host, disks, rounds=10),
    ],
    ids=["nixvirt", "terraform", "vagrant", "rename", "nova"],
)
def test_sequence(gated: BootedHost, run: Callable[[BootedHost, Path], None]) -> None:
    """Each NIC keeps its name."""
    run(gated, DISKS)
    gated.virsh("undefine", sequences.UUID, check=False)  # some sequences end with that
