"""Definitions from the real world: a directory beside the project, which the project does not contain."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from papr_hook import check, engine
from papr_hook.policy import Policy

CORPUS = Path(os.environ.get("PAPR_TEST_CORPUS", Path(__file__).parents[2] / "shared/corpus"))

pytestmark = pytest.mark.skipif(
    not CORPUS.is_dir(), reason=f"no corpus of real definitions in {CORPUS}; PAPR_TEST_CORPUS names another"
)


def files(kind: str) -> list[Path]:
    """The definitions of a kind, pseries or other."""
    return sorted((CORPUS / kind).glob("*.xml"))


@pytest.mark.parametrize("file", files("pseries"), ids=lambda file: file.stem)
def test_pseries_guests_are_laid_out(file: Path) -> None:
    """Each comes out complying, and the same the second time."""
    laid_out, _ = engine.judge(file.read_bytes(), Policy()).laid_out()
    again = engine.judge(laid_out, Policy())
    assert again.guest is not None
    assert check.complies(again.violations()), [str(violation) for violation in again.violations()]
    assert again.laid_out()[0] == laid_out


@pytest.mark.parametrize("file", files("other"), ids=lambda file: file.stem)
def test_others_come_back_byte_for_byte(file: Path) -> None:
    """What is not a pseries guest of this kind of host is not touched."""
    data = file.read_bytes()
    assert engine.judge(data, Policy(), "x86_64").laid_out()[0] == data
