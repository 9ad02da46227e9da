"""The fuzz target of domain XML: its seeds, the inputs that once failed, and some new ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz.driver import CRASHES, SEEDS, change, mutate
from fuzz.fuzz_domainxml import fuzz_one, make_document
from papr_hook.domainxml.text import parse
from papr_hook.errors import InputError

KEPT = sorted(
    path for kept in (SEEDS, CRASHES) if (kept / "domainxml").is_dir() for path in (kept / "domainxml").iterdir()
)
SECONDS = 15


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_kept_inputs(path: Path) -> None:
    """Nothing that was found once comes back."""
    fuzz_one(path.read_bytes())


def test_new_inputs(tmp_path: Path) -> None:
    """A short run of random mutations finds nothing."""
    assert mutate(fuzz_one, [path.read_bytes() for path in KEPT], SECONDS, 1, tmp_path) == 0


def test_most_scripts_make_xml() -> None:
    """Otherwise the target would try little but the parser."""
    numbers = random.Random(1)
    good = 0
    for _ in range(200):
        try:
            parse(make_document(numbers.randbytes(2) + b"\0" + numbers.randbytes(6)))
        except InputError:
            continue
        good += 1
    assert good > 60


def test_scripts_differ_in_what_they_make() -> None:
    """A change of a script is a change of the document."""
    made = {make_document(change(bytes(range(30)), random.Random(number))) for number in range(50)}
    assert len(made) > 20
