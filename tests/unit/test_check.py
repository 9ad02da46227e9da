"""The rules that a guest breaks."""

from __future__ import annotations

import pytest

from papr_hook.diagnostics import Severity
from papr_hook.layout.check import check
from papr_hook.model import HostTopology
from tests.helpers.small_guests import at, disk, nic, read, root

FIVE = [root(n) for n in range(5)]


def names(*devices: str, spares: int = 0) -> dict[str, Severity]:
    """Return the names of what check finds, with their severity."""
    return {str(found.name.value): found.severity for found in check(read(*devices), spares, HostTopology())}


def test_a_guest_that_complies() -> None:
    assert names(*FIVE, nic(1, at(0)), disk("vda", at(1))) == {}


@pytest.mark.parametrize(
    ("devices", "name"),
    [
        ([root(0), disk("vda")], "no-address"),
        ([root(0), disk("vda", at(0)), disk("vdb", at(0, 2))], "not-isolated"),
        ([root(0), root(2), disk("vda", at(0))], "pci-root-missing"),
        ([root(0), f"<controller type='pci' index='1' model='pci-bridge'>{at(0)}</controller>"], "pci-root-only"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_rule_is_an_error(devices: list[str], name: str) -> None:
    assert names(*devices)[name] is Severity.ERROR


def test_too_few_spares_are_a_warning() -> None:
    """They never keep a guest from starting."""
    assert names(*FIVE, disk("vda", at(1)), spares=6) == {"too-few-spares": Severity.WARNING}


def test_where_a_nic_is_breaks_no_rule() -> None:
    """Nor does another device on vPHB 0."""
    assert names(*FIVE, nic(1, at(3)), disk("vda", at(0))) == {}
