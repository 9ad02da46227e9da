"""The fuzz target of the gateway's protocol: its seeds, the inputs that once failed, and some new ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz.driver import CRASHES, SEEDS, change, mutate
from fuzz.fuzz_protocol import fuzz_one

KEPT = sorted(
    path for kept in (SEEDS, CRASHES) if (kept / "protocol").is_dir() for path in (kept / "protocol").iterdir()
)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_kept_inputs(path: Path) -> None:
    """Nothing that was found once comes back."""
    fuzz_one(path.read_bytes())


def test_new_inputs() -> None:
    """Some mutations of each seed, the same at each run."""
    numbers = random.Random(1)
    for path in KEPT:
        for _ in range(100):
            fuzz_one(change(path.read_bytes(), numbers))


def test_a_failing_input_is_kept(tmp_path: Path) -> None:
    """The driver writes it down and stops."""

    def fail(data: bytes) -> None:
        assert len(data) < 3, "too long"

    assert mutate(fail, [b"a"], 30, 0, tmp_path / "crashes") == 1
    (kept,) = (tmp_path / "crashes").iterdir()
    assert len(kept.read_bytes()) >= 3
