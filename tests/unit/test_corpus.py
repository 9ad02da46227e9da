"""Definitions from the real world: a directory beside the project, which the project does not contain."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook import pipeline
from papr_hook.config import Config
from papr_hook.layout import check
from tests.helpers.paths import CORPUS, NO_CORPUS

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"{NO_CORPUS} in {CORPUS}; PAPR_TEST_CORPUS names another")


def files(kind: str) -> list[Path]:
    """The definitions of a kind, pseries or other."""
    return sorted((CORPUS / kind).glob("*.xml"))


@pytest.mark.parametrize("file", files("pseries"), ids=lambda file: file.stem)
def test_pseries_guests_are_laid_out(file: Path) -> None:
    """Each comes out complying, and the same the second time."""
    laid_out = pipeline.analyze(file.read_bytes(), Config()).apply_layout().data
    again = pipeline.analyze(laid_out, Config())
    assert again.guest is not None
    assert check.complies(again.violations()), [str(violation) for violation in again.violations()]
    assert again.apply_layout().data == laid_out


@pytest.mark.parametrize("file", files("other"), ids=lambda file: file.stem)
def test_others_come_back_byte_for_byte(file: Path) -> None:
    """What is not a pseries guest of this kind of host is not touched."""
    data = file.read_bytes()
    assert pipeline.analyze(data, Config(), "x86_64").apply_layout().data == data
