"""How many vPHBs a guest can have, and how its devices fit onto them."""

from __future__ import annotations

import pytest

from papr_hook.diagnostics import Name
from papr_hook.layout.capacity import Capacity, empty_vphbs, reserved_buses, vphb_0_last
from papr_hook.model import MAX_PHBS
from tests.helpers.small_guests import at, disk, read, root


def capacity(endpoints: int, emulated: int, *, nic: bool = False, spares: int = 1) -> Capacity:
    """Return the capacity of a guest without a qemu:commandline."""
    return Capacity(MAX_PHBS, frozenset(), 0, endpoints, emulated, nic, spares)


@pytest.mark.parametrize(("emulated", "fits"), [(30, True), (31, False)])
def test_one_spare_counts_before_devices_share(emulated: int, fits: bool) -> None:
    assert capacity(0, emulated).fits_exclusively is fits


def test_the_last_spare_goes_when_its_vphb_is_needed() -> None:
    assert capacity(0, 31, spares=0).fits_exclusively


def test_the_nic_on_vphb_0_shares_last() -> None:
    """28 endpoints and the NIC leave two vPHBs, one of them a spare: 31 slots, then 62, then the NIC's own."""
    assert not capacity(28, 32, nic=True).joins_nic
    assert not capacity(28, 63, nic=True).joins_nic
    assert capacity(28, 64, nic=True).joins_nic


def test_too_many_endpoints_are_named() -> None:
    shortage = capacity(31, 1).shortage
    assert shortage is not None
    assert shortage.name is Name.TOO_MANY_ENDPOINTS
    assert capacity(31, 0, spares=0).shortage is None


def test_an_empty_vphb_that_is_kept_is_no_spare() -> None:
    """A user-defined alias, a NUMA node and reserve keep it."""
    alias = "<alias name='ua-mine'/>"
    reserve = "<metadata><papr:layout xmlns:papr='urn:papr-hook:domain:1' reserve='3'/></metadata>"
    guest = read(root(0), root(1, alias), root(2), root(3), disk("vda", at(0)), metadata=reserve)
    assert reserved_buses(guest) == {1, 3}
    assert empty_vphbs(guest) == {2}


def test_vphb_0_is_filled_last() -> None:
    assert sorted([0, 2, 1], key=vphb_0_last) == [1, 2, 0]
