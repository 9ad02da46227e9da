"""The target index of each vPHB."""

from __future__ import annotations

from papr_hook.layout.current import CurrentLayout
from papr_hook.layout.targets import assigned_targets, fill_targets, valid_targets
from papr_hook.model import HostTopology
from tests.helpers.small_guests import at, disk, read, root


def test_sparse_targets_are_valid() -> None:
    guest = read(root(0), "<controller type='pci' index='1' model='pci-root'><target index='30'/></controller>")
    assert valid_targets(guest) == {0: 0, 1: 30}


def test_a_target_that_is_used_twice_counts_for_the_first() -> None:
    twice = "<controller type='pci' index='2' model='pci-root'><target index='1'/></controller>"
    assert valid_targets(read(root(0), root(1), twice)) == {0: 0, 1: 1}


def test_missing_ones_are_the_lowest_unused() -> None:
    assert fill_targets({0: 0, 2: 1}, [0, 1, 2, 3], {2}) == {0: 0, 1: 3, 2: 1, 3: 4}


def test_libvirt_fills_in_up_to_the_highest_bus() -> None:
    """It adds the pci-roots below the highest address by itself."""
    guest = read(disk("vda", at(2)))
    assert guest.phbs == ()
    assert assigned_targets(CurrentLayout(guest, HostTopology())) == {0: 0, 1: 1, 2: 2}
