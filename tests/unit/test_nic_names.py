"""The names that udev gives network interfaces in the guest, and which of them a layout changes."""

from __future__ import annotations

import pytest

from papr_hook import domainxml
from papr_hook.layout.compute import compute_layout
from papr_hook.layout.nic_names import NicMove, find_moves, link_file, link_file_name, predict_name
from papr_hook.model import Guest, HostTopology, PciAddress


def guest(devices: str) -> Guest:
    """A guest with some devices, and none that libvirt adds."""
    xml = (
        "<domain type='kvm'><name>g</name><os><type arch='ppc64le' machine='pseries'>hvm</type></os><devices>"
        f"<controller type='usb' index='0' model='none'/><memballoon model='none'/>{devices}</devices></domain>"
    )
    made = domainxml.read(xml.encode()).guest
    assert made is not None
    return made


def nic(number: int, address: str = "", type_: str = "user", more: str = "") -> str:
    """A NIC with a MAC address that ends in a number, at bus:slot.function."""
    bus, _, place = address.partition(":")
    slot, _, function = place.partition(".")
    at = f"<address type='pci' bus='{bus}' slot='{slot}' function='{function or 0}' {more}/>" if address else ""
    source = (
        "<source><address type='pci' domain='0' bus='1' slot='0' function='0'/></source>" if type_ == "hostdev" else ""
    )
    mac = f"<mac address='52:54:00:00:00:0{number}'/>"
    return f"<interface type='{type_}'>{mac}{source}<model type='virtio'/>{at}</interface>"


def disk(address: str) -> str:
    """A disk at bus:slot.function."""
    bus, _, place = address.partition(":")
    slot, _, function = place.partition(".")
    at = f"<address type='pci' bus='{bus}' slot='{slot}' function='{function or 0}'/>"
    return f"<disk type='file'><source file='/d'/><target dev='vda' bus='virtio'/>{at}</disk>"


def moves(before: Guest, previous: Guest | None = None) -> dict[str, NicMove]:
    """The moves of a guest's layout, by the last two digits of the MAC address."""
    made = compute_layout(before, 4, HostTopology())
    return {move.mac[-2:]: move for move in find_moves(before, made, HostTopology(), previous)}


@pytest.mark.parametrize(
    ("address", "multifunction", "name"),
    [
        (PciAddress(0, 0, 1, 0), False, "enp0s1"),
        (PciAddress(3, 0, 1, 0), False, "enP3p0s1"),
        (PciAddress(30, 0, 31, 0), False, "enP30p0s31"),
        (PciAddress(0, 0, 16, 0), True, "enp0s16f0"),
        (PciAddress(2, 0, 1, 7), False, "enP2p0s1f7"),
    ],
)
def test_names_are_decimal_and_leave_out_zeros(address: PciAddress, multifunction: bool, name: str) -> None:
    """Numbers are decimal; domain 0 is left out, and function 0 of a slot with one function."""
    assert predict_name(address, multifunction) == name


def test_addresses_that_stay_are_no_moves() -> None:
    """A layout that leaves every address where it is has no moves."""
    assert (
        moves(guest("<controller type='pci' index='0' model='pci-root'><target index='0'/></controller>" + nic(1)))
        == {}
    )


def test_a_move_has_addresses_and_names() -> None:
    """A NIC that leaves vPHB 0 for another has a note with both addresses and both names."""
    found = moves(guest(nic(1, "0:1") + nic(2, "0:2") + disk("0:3")))
    move = found["02"]
    assert (str(move.old), move.old_name) == ("0000:00:02.0", "enp0s2")
    assert move.new_name == predict_name(move.new, False) and move.new.domain > 0
    assert str(move.diagnostic()) == (
        "note: <interface> 52:54:00:00:00:02 moves from 0000:00:02.0 to "
        f"{move.new} in the guest, where udev's name changes from enp0s2 to {move.new_name} [nic-renamed]"
    )


def test_target_indexes_are_the_domains() -> None:
    """A bus that keeps its target index keeps the name, and one that gets another target index does not."""
    roots = "".join(
        f"<controller type='pci' index='{index}' model='pci-root'><target index='{target}'/></controller>"
        for index, target in ((0, 0), (1, 9), (2, 9))
    )
    found = moves(guest(roots + nic(1, "1:1") + nic(2, "2:1")))
    assert "01" not in found
    assert found["02"].old_name == "enP9p0s1"
    assert found["02"].new_name != "enP9p0s1"


def test_functions_of_one_slot_have_the_function_in_their_name() -> None:
    """Function 0 has f0 in its name if other functions of its slot are used, or if the XML asks for that bit."""
    shared = moves(guest(disk("0:1") + disk("0:2").replace("vda", "vdb") + nic(1, "0:3") + nic(2, "0:3.1")))
    assert {move.old_name for move in shared.values()} <= {"enp0s3f0", "enp0s3f1"}
    asked = moves(guest(nic(3, "0:1") + nic(1, "0:4", more="multifunction='on'")))
    assert asked["01"].old_name == "enp0s4f0"
    assert "f" not in asked["01"].new_name


def test_behind_a_bridge_the_old_name_is_unknown() -> None:
    """The bus number behind a bridge is the guest's, so there is no old name."""
    bridge = (
        "<controller type='pci' index='0' model='pci-root'/><controller type='pci' index='1' model='pci-bridge'>"
        "<address type='pci' bus='0' slot='5'/></controller>"
    )
    move = moves(guest(bridge + nic(1, "1:1")))["01"]
    assert move.old_name is None
    assert "moves from 0000:01:01.0 behind a bridge to " in str(move.diagnostic())


def test_passed_through_names_are_prefixes() -> None:
    """The driver adds the port to the name of a passed-through interface."""
    move = moves(guest(nic(1, "0:1") + nic(2, "0:2", "hostdev")))["02"]
    assert move.is_prefix
    assert f"from enp0s2* to {move.new_name}*" in str(move.diagnostic())


def test_without_an_address_or_a_mac_nothing_changes() -> None:
    """A NIC that has never had an address or a MAC address has no name to lose."""
    assert moves(guest(nic(1) + nic(2))) == {}
    without_mac = nic(2, "0:2").replace("<mac address='52:54:00:00:00:02'/>", "")
    assert set(moves(guest(nic(1, "0:1") + without_mac))) <= {"01"}


def test_the_previous_definition_has_the_old_address() -> None:
    """A NIC without an address had the one of the previous domain XML."""
    before = guest(nic(1, "0:1") + nic(2, "0:2"))
    assert moves(guest(nic(1) + nic(2)), before)["02"].old_name == "enp0s2"


def test_link_files() -> None:
    """A .link file gives the interface with the MAC address a name, before systemd's own files."""
    lines = link_file("52:54:00:00:00:01", "enp0s1").splitlines()
    assert lines[1:] == ["[Match]", "MACAddress=52:54:00:00:00:01", "", "[Link]", "Name=enp0s1"]
    assert link_file_name("52:54:00:00:00:01") == "10-papr-hook-525400000001.link"
    assert link_file_name("52:54:00:00:00:01") < "99-default.link"
