"""From domain XML to domain XML."""

from __future__ import annotations

import dataclasses

from papr_hook import pipeline
from papr_hook.config import Config, Mode
from tests.helpers.paths import GOLDEN

PC = (GOLDEN / "pc-shaped-in.xml").read_bytes()
COMPLIES = (GOLDEN / "complies-in.xml").read_bytes()


def test_a_layout_changes_the_domain_xml_once() -> None:
    first = pipeline.analyze(PC, Config()).apply_layout()
    assert first.changed
    again = pipeline.analyze(first.data, Config()).apply_layout()
    assert not again.changed
    assert again.data == first.data


def test_what_complies_lacks_no_place() -> None:
    """So nobody has to be asked for the earlier domain XML."""
    assert not pipeline.analyze(COMPLIES, Config()).lacks_place
    assert pipeline.analyze(PC, Config()).lacks_place


def test_a_guest_that_opted_out_is_left_alone() -> None:
    analysis = pipeline.analyze(PC, dataclasses.replace(Config(), mode=Mode.KEEP))
    assert analysis.opted_out
    assert analysis.violations() == ()
    assert analysis.apply_layout().data == PC


def test_a_previous_domain_xml_that_is_none_is_ignored() -> None:
    """Neither garbage nor another architecture's is a reason to fail."""
    alone = pipeline.analyze(PC, Config()).apply_layout()
    for garbage in (b"", b"<domain", b"\xff", (GOLDEN / "x86-in.xml").read_bytes()):
        assert pipeline.analyze(PC, Config()).apply_layout(garbage).data == alone.data
