"""The numbers that libvirt derives from a target's name."""

from __future__ import annotations

import pytest
from lxml import etree

from papr_hook.domainxml.disks import disk_bus, disk_number, drive_controller, drive_unit, nvme_controller


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("sda", 0),
        ("hdz", 25),
        ("vdaa", 26),
        ("xvdb1", 1),
        ("sd", None),
        ("sdA", None),
        ("nvme0n1", None),
        ("sda-", None),
    ],
)
def test_disk_number(name: str, number: int | None) -> None:
    assert disk_number(name) == number


@pytest.mark.parametrize(
    ("name", "controller"),
    [
        ("nvme0n1", 0),
        ("nvme0n2", 0),
        ("nvme12n1", 12),
        ("nvme1", None),
        ("sda", None),
        ("nvme" + "9" * 5000 + "n1", None),
    ],
)
def test_nvme_controller(name: str, controller: int | None) -> None:
    assert nvme_controller(name) == controller


@pytest.mark.parametrize(
    ("target", "bus"),
    [("dev='sda' bus='virtio'", "virtio"), ("dev='vda'", "virtio"), ("dev='sda'", "scsi"), ("dev='nbd0'", None)],
)
def test_disk_bus(target: str, bus: str | None) -> None:
    assert disk_bus(etree.fromstring(f"<disk><target {target}/></disk>")) == bus
    assert disk_bus(etree.Element("disk")) is None


def test_own_address() -> None:
    disk = etree.fromstring("<disk><address type='drive' controller='2' unit='3'/></disk>")
    assert (drive_controller(disk), drive_unit(disk)) == (2, 3)
    assert (drive_controller(etree.Element("disk")), drive_unit(etree.Element("disk"))) == (None, 0)
    assert drive_controller(etree.fromstring("<disk><address type='pci'/></disk>")) is None
