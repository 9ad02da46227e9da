"""What libvirt adds by itself, as far as it sits on PCI."""

from __future__ import annotations

import pytest
from lxml import etree

from papr_hook.domainxml.controllers import assign_indexes
from papr_hook.domainxml.implicit import implicit_devices
from papr_hook.errors import InputError

QUIET = "<controller type='usb' model='none'/><memballoon model='none'/>"


def added(devices: str, quiet: str = QUIET) -> list[str]:
    elements = list(etree.fromstring(f"<devices>{quiet}{devices}</devices>"))
    return [one.name for one in implicit_devices(elements, assign_indexes(elements))]


def controllers(kind: str, *indexes: int) -> list[str]:
    return [f"<controller> {kind} {index} (added by libvirt)" for index in indexes]


def test_usb_and_memballoon() -> None:
    assert added("", "") == [*controllers("usb", 0), "<memballoon> (added by libvirt)"]
    assert added("<controller type='usb' index='1'/>", "<memballoon/>") == controllers("usb", 0)


def test_video_comes_with_graphics() -> None:
    assert added("<graphics type='vnc'/>") == ["<video> (added by libvirt)"]
    assert added("<graphics type='vnc'/><video/>") == []


@pytest.mark.parametrize(
    ("disks", "indexes"),
    [
        ("<disk><target dev='sda' bus='sata'/></disk>", (0,)),
        ("<disk><target dev='sdg' bus='sata'/></disk>", (0, 1)),
        ("<disk><target dev='sda' bus='sata'/><address type='drive' controller='2'/></disk>", (0, 1, 2)),
        ("<controller type='sata' index='1'/><disk><target dev='sdg' bus='sata'/></disk>", (0,)),
        ("<disk><target dev='sda' bus='scsi'/></disk>", ()),
        ("<disk><target dev='odd' bus='sata'/></disk>", ()),
    ],
)
def test_sata(disks: str, indexes: tuple[int, ...]) -> None:
    """An AHCI controller has six ports."""
    assert added(disks) == controllers("sata", *indexes)


@pytest.mark.parametrize(
    ("disks", "indexes"),
    [
        ("<disk><target dev='nvme0n1' bus='nvme'/></disk>", (0,)),
        ("<disk><target dev='nvme0n1' bus='nvme'/></disk><disk><target dev='nvme0n2' bus='nvme'/></disk>", (0,)),
        ("<disk><target dev='nvme2n1' bus='nvme'/></disk>", (0, 1, 2)),
        ("<disk><target dev='nvme0n1' bus='nvme'/><address type='drive' controller='1'/></disk>", (0, 1)),
        ("<controller type='nvme' index='0'/><disk><target dev='nvme1n1' bus='nvme'/></disk>", (1,)),
    ],
)
def test_nvme(disks: str, indexes: tuple[int, ...]) -> None:
    """libvirt 11.5 and later: the disk is on the controller, and that on PCI."""
    assert added(disks) == controllers("nvme", *indexes)


@pytest.mark.parametrize(("bus", "name"), [("sata", "sdzzzz"), ("nvme", "nvme99999n1")])
def test_too_many_controllers(bus: str, name: str) -> None:
    with pytest.raises(InputError, match=f"{bus.upper()} controllers"):
        added(f"<disk><target dev='{name}' bus='{bus}'/></disk>")


CHANNEL = "<channel type='unix'><target type='virtio'/>{}</channel>"
AT = "<address type='virtio-serial' controller='{}' port='{}'/>"
CONSOLE = "<console type='pty'><target type='virtio'/></console>"


@pytest.mark.parametrize(
    ("devices", "indexes"),
    [
        (CONSOLE, (0,)),
        (CHANNEL.format("") * 30, (0,)),
        (CHANNEL.format("") * 31, (0, 1)),
        (CONSOLE + CHANNEL.format("") * 30, (0,)),
        (CHANNEL.format("") * 60, (0, 1)),
        (CHANNEL.format("") * 61, (0, 1, 2)),
        (CHANNEL.format(AT.format(3, 1)), (3,)),
        (CHANNEL.format(AT.format(3, 1)) + CHANNEL.format("") * 30, (0, 3)),
        ("<controller type='virtio-serial' index='0' ports='1'/>" + CHANNEL.format(""), (1,)),
        ("<controller type='virtio-serial' index='0' ports='2'/>" + CHANNEL.format(AT.format(0, 0)), ()),
        ("<channel type='spicevmc'><target type='guestfwd'/></channel>", ()),
    ],
)
def test_virtio_serial(devices: str, indexes: tuple[int, ...]) -> None:
    """A controller has thirty ports for channels, and one more for consoles."""
    assert added(devices) == controllers("virtio-serial", *indexes)


def test_a_scsi_controller_on_pci() -> None:
    scsi = "<hostdev mode='subsystem' type='scsi'><address type='drive' controller='{}'/></hostdev>"
    one = "<controller type='scsi' index='0' model='virtio-scsi'/>"
    assert added(one + scsi.format(0) + scsi.format(1)) == controllers("scsi", 1)
    assert added(scsi.format(0)) == []
