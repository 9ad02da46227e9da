"""A guest as JSON."""

from __future__ import annotations

import json

import pytest

from papr_hook.model import HostTopology
from papr_hook.render.json import describe_guest, drc_index
from tests.helpers.small_guests import at, disk, read, root


@pytest.mark.parametrize(("target", "drc"), [(0, "0x20000000"), (30, "0x2000001e"), (None, None)])
def test_the_drc_index_of_a_phb(target: int | None, drc: str | None) -> None:
    assert drc_index(target) == drc


def test_a_guest_can_be_written() -> None:
    text = json.dumps(describe_guest(read(root(0), root(1), disk("vda", at(1))), HostTopology()))
    assert "vda" in text
