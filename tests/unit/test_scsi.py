"""The SCSI controllers that libvirt adds for SCSI host devices."""

from __future__ import annotations

import pytest
from lxml import etree

from papr_hook.domainxml.scsi import added_controllers, added_while_parsing
from papr_hook.errors import InputError

HOSTDEV = "<hostdev mode='subsystem' type='scsi'>{}</hostdev>"
ON = "<address type='drive' controller='{}' unit='{}'/>"


def hostdevs(*addresses: str) -> list[etree._Element]:
    return [etree.fromstring(HOSTDEV.format(address)) for address in addresses]


def controller(index: int, model: str) -> etree._Element:
    return etree.fromstring(f"<controller type='scsi' index='{index}' model='{model}'/>")


def test_no_host_device_needs_none() -> None:
    assert list(added_controllers([], [], {})) == []


def test_the_first_is_on_spapr_vio() -> None:
    assert list(added_controllers(hostdevs(""), [], {})) == [(0, None)]


def test_further_ones_take_the_model_of_one_that_is_there() -> None:
    present = {0: controller(0, "virtio-scsi")}
    assert list(added_controllers(hostdevs(ON.format(2, 0)), [], present)) == [(1, None), (2, None)]
    both = hostdevs(ON.format(0, 0), ON.format(2, 0))
    assert list(added_controllers(both, [], present)) == [(1, "virtio-scsi"), (2, "virtio-scsi")]
    assert list(added_while_parsing([present[0], *both])) == [("scsi", 1), ("scsi", 2)]


def test_units_run_out() -> None:
    """Seven fit on a controller; disks and given units are taken."""
    present = {0: controller(0, "virtio-scsi")}
    disks = [etree.fromstring("<disk><target dev='sda' bus='scsi'/></disk>")]
    assert list(added_controllers(hostdevs(*[""] * 6), disks, present)) == []
    assert list(added_controllers(hostdevs(*[""] * 7), disks, present)) == [(1, "virtio-scsi")]
    assert list(added_controllers(hostdevs(ON.format(0, 1), *[""] * 6), disks, present)) == [(1, "virtio-scsi")]


def test_too_many() -> None:
    with pytest.raises(InputError, match="needs 1025 SCSI controllers"):
        list(added_controllers(hostdevs(ON.format(1025, 0)), [], {}))
