"""What identifies a device in another domain XML of its guest."""

from __future__ import annotations

import pytest

from papr_hook import domainxml


def identify(device: str) -> tuple[str, str | None, int]:
    """Kind, identity and rank of a device, as the guest has them."""
    data = (
        "<domain type='kvm'><name>g</name><os><type arch='ppc64le' machine='pseries'>hvm</type></os><devices>"
        f"<controller type='usb' model='none'/><memballoon model='none'/>{device}</devices></domain>"
    )
    guest = domainxml.read(data.encode()).guest
    assert guest is not None
    (found,) = guest.devices
    return found.kind, found.identity, found.rank


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (
            "<interface type='user'><mac address='52:54:00:A:0:1'/></interface>",
            ("interface", "52:54:00:a:0:1", 0),
        ),
        ("<interface type='user'/>", ("interface", None, 0)),
        ("<disk><target dev='vdc' bus='virtio'/></disk>", ("disk", "virtio vdc", 2)),
        ("<controller type='scsi' index='3' model='virtio-scsi'/>", ("controller scsi", "3", 3)),
        ("<controller type='usb' index='1' model='ich9-ehci1'/>", ("controller usb", "1 ich9-ehci1", 1)),
        ("<filesystem><source dir='/a'/><target dir='b'/></filesystem>", ("filesystem", "b", 0)),
        (
            "<hostdev mode='subsystem' type='pci'><source><address bus='012' slot='1'/></source></hostdev>",
            ("hostdev pci", "0000:0a:01.0", 0),
        ),
        (
            "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='u'/></source></hostdev>",
            ("hostdev mdev", "u", 0),
        ),
        (
            "<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.5'/></hostdev>",
            ("hostdev scsi_host", "naa.5", 0),
        ),
        ("<rng model='virtio'><alias name='ua-r'/></rng>", ("rng", "ua-r", 0)),
        ("<rng model='virtio'><alias name='rng0'/></rng>", ("rng", None, 0)),
    ],
)
def test_identity(device: str, expected: tuple[str, str | None, int]) -> None:
    """A MAC, a target, an index, a source or a user-defined alias, and nothing that libvirt chooses."""
    assert identify(device) == expected


def test_what_libvirt_adds_is_identified_like_what_is_written() -> None:
    """The controllers that libvirt would add have their index."""
    assert identify("<channel type='pty'><target type='virtio'/></channel>") == ("controller virtio-serial", "0", 0)
