"""Which vPHB a device gets."""

from __future__ import annotations

import pytest

from papr_hook.errors import LayoutError
from papr_hook.layout.assign import Assignment, assign_buses, nic_numbers
from papr_hook.layout.current import CurrentLayout
from papr_hook.layout.keep import find_kept
from papr_hook.model import HostTopology
from tests.helpers.small_guests import at, disk, hostdev, nic, read, root


def assign(*devices: str, commandline: str = "") -> tuple[CurrentLayout, Assignment]:
    """Return a guest and the vPHBs of its devices."""
    current = CurrentLayout(read(*devices, commandline=commandline), HostTopology())
    return current, assign_buses(current, find_kept(current, 4), 4, {})


def target_of(current: CurrentLayout, made: Assignment, name: str) -> int:
    """Return the target index of the vPHB that a device is on."""
    for bus, groups in made.groups.items():
        if any(device.name == name for group in groups for device in current.members(group)):
            return made.targets[bus]
    raise AssertionError(f"{name} is nowhere")


def test_endpoints_come_first_and_further_nics_count_down() -> None:
    current, made = assign(disk("vda"), nic(1), nic(2), nic(3), hostdev(1), hostdev(2))
    assert made.count == 10
    names = ("<interface> 52:54:00:00:00:01", "<interface> 52:54:00:00:00:02", "<interface> 52:54:00:00:00:03")
    assert [target_of(current, made, name) for name in names] == [0, 30, 29]
    assert [target_of(current, made, f"<hostdev> 0000:01:0{n}.0") for n in (1, 2)] == [1, 2]
    assert target_of(current, made, "<disk> vda") == 3


def test_a_nic_that_complies_elsewhere_leaves_vphb_0_to_the_next() -> None:
    current, made = assign(root(0), root(1), nic(1, at(1)), nic(2))
    assert made.owner is not None
    assert [device.mac for device in current.members(made.owner)] == ["52:54:00:00:00:02"]
    numbers = nic_numbers(current, made.owner)
    assert sorted(numbers.values()) == [0, 1]


def test_more_phbs_than_a_guest_can_have_are_refused() -> None:
    """The domain XML uses all 31, and the qemu:commandline adds one."""
    roots = [root(n) for n in range(31)]
    with pytest.raises(LayoutError) as refused:
        assign(*roots, disk("vda", at(30)), commandline="-device spapr-pci-host-bridge,index=30,id=mine")
    assert "more than 31 PHBs" in str(refused.value)
