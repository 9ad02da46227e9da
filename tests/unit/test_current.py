"""The layout that a guest has already."""

from __future__ import annotations

from papr_hook.layout.current import CurrentLayout
from papr_hook.model import HostTopology, PciAddress
from tests.helpers.small_guests import at, disk, hostdev, nic, read, root


def test_an_address_on_a_phb_that_libvirt_adds_is_usable() -> None:
    current = CurrentLayout(read(nic(1, at(0))), HostTopology())
    assert current.is_usable(PciAddress(bus=0, slot=1))
    assert not current.is_usable(PciAddress(bus=0, slot=0))
    assert not current.is_usable(PciAddress(bus=31, slot=1))


def test_an_address_behind_a_bridge_is_not_usable() -> None:
    bridge = f"<controller type='pci' index='1' model='pci-bridge'>{at(0)}</controller>"
    current = CurrentLayout(read(root(0), bridge, disk("vda", at(1))), HostTopology())
    assert not current.is_usable(PciAddress(bus=1, slot=1))
    assert current.on_bus == {}


def test_an_endpoint_on_two_buses_is_nowhere() -> None:
    guest = read(root(0), root(1), root(2), hostdev(1, at(1)), hostdev(2, at(2)))
    sources = [device.source for device in guest.devices if device.source is not None]
    current = CurrentLayout(guest, HostTopology(iommu_groups=dict.fromkeys(sources, 7)))
    (group,) = current.groups
    assert group.endpoint
    assert current.home(group) is None


def test_the_first_nic_on_bus_0_owns_it() -> None:
    current = CurrentLayout(read(root(0), nic(1), nic(2, at(0, 3)), nic(3, at(0, 2))), HostTopology())
    owner = current.nic_on_bus_0
    assert owner is not None
    assert [device.mac for device in current.members(owner)] == ["52:54:00:00:00:02"]
