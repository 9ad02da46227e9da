"""What stays where it is."""

from __future__ import annotations

from papr_hook.layout.current import CurrentLayout
from papr_hook.layout.keep import find_kept
from papr_hook.model import HostTopology
from tests.helpers.small_guests import at, disk, hostdev, nic, read, root


def kept(*devices: str) -> dict[int, list[str]]:
    """Return the names of the devices that stay, by bus."""
    current = CurrentLayout(read(*devices), HostTopology())
    found = find_kept(current, 4).buses
    return {
        bus: [d.name for group in groups for d in current.members(group)] for bus, groups in found.items() if groups
    }


def test_what_is_alone_stays() -> None:
    assert kept(root(0), root(1), disk("vda", at(1, 5))) == {1: ["<disk> vda"]}


def test_of_two_disks_on_one_vphb_neither_stays() -> None:
    assert kept(root(0), root(1), disk("vda", at(1)), disk("vdb", at(1, 2))) == {}


def test_the_first_nic_of_a_shared_vphb_stays() -> None:
    assert kept(root(0), disk("vda", at(0, 2)), nic(1, at(0)), nic(2, at(0, 3))) == {
        0: ["<interface> 52:54:00:00:00:01"]
    }


def test_an_endpoint_keeps_the_vphb_that_others_are_on() -> None:
    assert kept(root(0), root(1), hostdev(1, at(1)), nic(1, at(1, 2))) == {1: ["<hostdev> 0000:01:01.0"]}
