"""A running guest: QEMU's devices against libvirt's domain XML."""

from __future__ import annotations

from dataclasses import replace

from papr_hook.diagnostics import Diagnostic
from papr_hook.doctor.guest import judge_guest
from papr_hook.doctor.qtree import QemuDevice, QemuPhb
from papr_hook.model import Guest
from tests.helpers.small_guests import at, disk, nic, read, root

NIC = QemuDevice("virtio-net-pci", "net0", 1, 0)
DISK = QemuDevice("virtio-blk-pci", "virtio-disk0", 1, 0)
PHBS = (
    QemuPhb(0, "", True, (NIC,)),
    QemuPhb(1, "pci.1", True, (DISK,)),
    QemuPhb(2, "pci.2", True, ()),
)


def guest(commandline: str = "") -> Guest:
    """Return a guest with a NIC, a disk and a spare."""
    return read(root(0), root(1), root(2), nic(1, at(0)), disk("vda", at(1)), commandline=commandline)


def faults(*phbs: QemuPhb, given: Guest | None = None) -> list[Diagnostic]:
    """Return what is found, without the number of free vPHBs."""
    return [one for one in judge_guest(given or guest(), phbs) if one.name.value != "free-vphbs"]


def test_a_guest_that_agrees() -> None:
    """Nothing is found, and the free vPHBs are counted."""
    assert faults(*PHBS) == []
    (found,) = judge_guest(guest(), PHBS)
    assert str(found) == "note: 1 of 3 vPHBs are free for hotplug: 2 [free-vphbs]"


def test_a_phb_that_libvirt_does_not_know() -> None:
    """It prevents a restore; one that the qemu:commandline adds does not."""
    extra = QemuPhb(9, "extra", True, ())
    (found,) = faults(*PHBS, extra)
    assert found.message.startswith("PHB 9 'extra' is in QEMU but not in libvirt's domain XML, so a save")
    assert "device_del extra" in found.text
    assert found.is_error
    assert faults(*PHBS, extra, given=guest("-device spapr-pci-host-bridge,index=9,id=extra")) == []


def test_a_phb_that_qemu_lacks() -> None:
    """Its devices are not reported one by one."""
    (found,) = faults(PHBS[0], PHBS[2])
    assert (found.name.value, found.device, found.is_error) == ("phb-missing", "vPHB 1", True)


def test_a_device_elsewhere() -> None:
    """A device in another slot is missing in one place and unknown in the other."""
    moved = replace(PHBS[1], devices=(replace(DISK, slot=2),))
    missing, unknown = faults(PHBS[0], moved, PHBS[2])
    assert (missing.name.value, missing.device) == ("device-missing", "<disk> vda")
    assert "at 0000:01:01.0" in missing.text
    assert (unknown.name.value, unknown.device) == ("device-unknown", "virtio-blk-pci 'virtio-disk0'")


def test_devices_of_the_commandline_are_known() -> None:
    """libvirt's domain XML has them, in another place."""
    more = replace(PHBS[2], devices=(QemuDevice("edu", "mine", 3, 0),))
    given = guest("-device edu,id=mine,bus=pci.2.0,addr=3")
    assert faults(*PHBS[:2], more, given=given) == []
    assert [one.name.value for one in faults(*PHBS[:2], more)] == ["device-unknown"]


def test_a_spare_that_is_in_use_behind_libvirt_is_not_free() -> None:
    """An attach to it would not get a vPHB of its own."""
    used = replace(PHBS[2], devices=(replace(NIC, id="net9"),))
    assert [one.text for one in judge_guest(guest(), (*PHBS[:2], used))][-1] == "0 of 3 vPHBs are free for hotplug"


def test_a_machine_without_extended_config_space() -> None:
    """One warning names the PHBs."""
    (found,) = faults(PHBS[0], replace(PHBS[1], has_extended_config=False), PHBS[2])
    assert found.name.value == "config-space"
    assert "PHBs 1 lack ibm,pci-config-space-type" in found.text
