"""Who gets vPHB 0 and at which address, who stays where devices share, and which vPHBs stay empty."""

from __future__ import annotations

import pytest

from papr_hook.diagnostics import Name
from papr_hook.layout import check
from papr_hook.layout.compute import compute_layout
from papr_hook.model import Guest, HostTopology, PciAddress
from tests.helpers.small_guests import at, disk, hostdev, nic, read, root

HOST = HostTopology()


def addresses(guest: Guest, spares: int = 4) -> list[str]:
    """The bus, slot and function of each device."""
    layout = compute_layout(guest, spares, HOST)
    return [f"{address.bus}:{address.slot}.{address.function}" for address in layout.addresses]


def faults(guest: Guest) -> set[str]:
    """What check finds, by severity and name."""
    return {f"{found.severity.value} {found.name.value}" for found in check.check(guest, 0, HOST)}


FILESYSTEM = "<filesystem><source dir='/a'/><target dir='a'/></filesystem>"
BRIDGE = "<controller type='pci' index='7' model='pci-bridge'/>"


@pytest.mark.parametrize(
    ("devices", "slot"),
    [
        ((), 1),
        ((disk("vda", at(0, 1)), disk("vdb", at(0, 2))), 3),
        ((hostdev(1, at(0, 1)), disk("vdb", at(0, 3))), 2),
        ((FILESYSTEM,), 2),
        ((BRIDGE, FILESYSTEM), 3),
        ((BRIDGE, disk("vda", at(7, 1)), FILESYSTEM.replace("</f", at(7, 2) + "</f")), 3),
        (tuple(disk(f"vd{chr(97 + n // 26)}{chr(97 + n % 26)}", at(0, n + 1)) for n in range(31)), 1),
    ],
    ids=["alone", "disks", "a-hostdev", "a-filesystem", "a-bridge", "behind-a-bridge", "full"],
)
def test_the_first_nic_is_where_libvirt_alone_puts_it(devices: tuple[str, ...], slot: int) -> None:
    """The lowest slot of vPHB 0 that no address takes, after the bridges and the filesystems without one."""
    assert addresses(read(root(0), *devices, nic(1)))[-1] == f"0:{slot}.0"


def test_an_address_on_vphb_0_counts_more_than_the_order() -> None:
    """The second NIC has one, so the first gets another vPHB."""
    assert addresses(read(root(0), nic(1), nic(2, at(0, 9)), disk("vda", at(0, 8)))) == ["1:1.0", "0:9.0", "2:1.0"]


def test_a_nic_that_complies_elsewhere_is_no_candidate() -> None:
    """vPHB 0 goes to the first NIC without a place, and a disk leaves it for that NIC."""
    assert addresses(read(root(0), root(1), nic(1, at(1)), nic(2))) == ["1:1.0", "0:1.0"]
    assert addresses(read(root(0), disk("vda", at(0, 1)), nic(1))) == ["1:1.0", "0:2.0"]
    assert addresses(read(root(0), root(1), disk("vda", at(0, 1)), nic(1, at(1)))) == ["0:1.0", "1:1.0"]


def test_what_shares_its_slot_stays_with_the_nic() -> None:
    """The functions of one slot are one device."""
    guest = read(root(0), nic(1, at(0, 5, 0)), disk("vda", at(0, 5, 1)), disk("vdb", at(0, 6)))
    assert addresses(guest) == ["0:5.0", "0:5.1", "1:1.0"]


def test_where_devices_share_the_first_nic_stays_or_the_endpoint() -> None:
    """On vPHB 0 the endpoint moves; where there is neither, all move."""
    roots = [root(index) for index in range(5)]
    assert addresses(read(*roots, disk("vda", at(2)), nic(1, at(2, 2)), nic(2, at(2, 3)), nic(3, at(0)))) == [
        "1:1.0", "2:2.0", "5:1.0", "0:1.0"
    ]  # fmt: skip
    assert addresses(read(*roots, hostdev(1, at(3, 2)), nic(1, at(3)), nic(2, at(0)))) == ["3:2.0", "5:1.0", "0:1.0"]
    assert addresses(read(*roots, hostdev(1, at(0, 2)), nic(1, at(0, 3)))) == ["1:1.0", "0:3.0"]
    assert addresses(read(*roots, disk("vda", at(2)), disk("vdb", at(2, 2)))) == ["1:1.0", "2:1.0"]


def test_a_phb_that_libvirt_adds_keeps_its_devices() -> None:
    """check reports the missing pci-root alone, and the layout writes it with libvirt's target index."""
    guest = read(nic(1, at(0)), nic(2, at(3)))
    assert faults(guest) == {"error pci-root-missing"}
    layout = compute_layout(guest, 0, HOST)
    assert [(address.bus, layout.phbs[address.bus].target) for address in layout.addresses] == [(0, 0), (3, 3)]


def test_the_commandline_keeps_all_but_the_first_nic_off_vphb_0() -> None:
    """check warns; an address of the commandline at the NIC's slot makes the NIC take the next free one."""
    guest = read(root(0), root(1), nic(1, at(0)), commandline="-device edu,bus=pci.0")
    assert addresses(guest) == ["0:1.0"]
    assert faults(guest) == {"warning commandline-bus"}
    clash = read(root(0), root(1), nic(1, at(0)), commandline="-device edu,bus=pci.0,addr=0x1")
    assert addresses(clash) == ["0:2.0"]
    assert faults(clash) == {"error commandline-bus"}
    assert addresses(read(root(0), root(1), disk("vda", at(0)), commandline="-device edu,bus=pci.0")) == ["1:1.0"]


def test_an_empty_vphb_with_a_purpose_is_no_spare() -> None:
    """A user-defined alias, or reserve, keeps it empty."""
    reserve = "<metadata><p:layout xmlns:p='urn:papr-hook:domain:1' reserve='1 5'/></metadata>"
    for guest in (
        read(root(0), root(1, "<alias name='ua-mine'/>"), disk("vda")),
        read(root(0), root(1), disk("vda"), metadata=reserve),
    ):
        layout = compute_layout(guest, 2, HOST)
        assert layout.addresses == (PciAddress(bus=2, slot=1),)
    assert len(layout.phbs) == 6


def test_an_alias_does_not_keep_the_first_nic_off_vphb_0() -> None:
    """Only reserve does."""
    reserve = "<metadata><p:layout xmlns:p='urn:papr-hook:domain:1' reserve='0'/></metadata>"
    assert addresses(read(root(0, "<alias name='ua-mine'/>"), nic(1))) == ["0:1.0"]
    assert addresses(read(root(0), nic(1), metadata=reserve)) == ["1:1.0"]


def test_a_vphb_with_an_alias_becomes_empty_for_good() -> None:
    """Its devices share it, so they leave, and it is no spare from then on."""
    guest = read(root(0), root(1, "<alias name='ua-mine'/>"), disk("vda", at(1)), disk("vdb", at(1, 2)))
    assert addresses(guest, 1) == ["2:1.0", "3:1.0"]


@pytest.mark.parametrize(
    ("disks", "own", "largest", "spares"),
    [(26, True, 1, 4), (29, True, 1, 1), (30, True, 2, 1), (58, True, 2, 1), (59, True, 3, 1)],
)
def test_the_nic_keeps_vphb_0_to_itself_while_the_others_share(
    disks: int, own: bool, largest: int, spares: int
) -> None:
    """First the spares shrink to one, then the other devices share evenly."""
    names = [f"vd{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(disks)]
    layout = compute_layout(read(nic(1), *map(disk, names)), 4, HOST)
    buses = [address.bus for address in layout.addresses]
    assert (buses.count(0) == 1) is own
    assert max(map(buses.count, buses)) == largest
    assert len(layout.phbs) - len(set(buses)) == spares
    assert (Name.SHARED_VPHB in {found.name for found in layout.diagnostics}) is (largest > 1)


def test_the_others_join_the_nic_when_endpoints_take_the_rest() -> None:
    """The last spare goes first; the NIC keeps its slot."""
    with_one = read(nic(1), *map(hostdev, range(29)), disk("vda"), disk("vdb"))
    assert [place.split(":")[0] for place in addresses(with_one)].count("0") == 1
    with_none = read(nic(1), *map(hostdev, range(30)), disk("vda"), disk("vdb"))
    places = addresses(with_none)
    assert [places[0], *places[-2:]] == ["0:1.0", "0:2.0", "0:3.0"]
