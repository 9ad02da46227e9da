"""Which elements sit on PCI."""

from __future__ import annotations

import pytest
from lxml import etree

from papr_hook.domainxml.pci_devices import sits_on_pci
from papr_hook.errors import InputError

PCI = "<address type='pci' bus='1' slot='1'/>"


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("<disk><target dev='vda'/></disk>", True),
        ("<disk><target dev='nvme0n1' bus='nvme'/></disk>", False),
        ("<disk><target dev='sda' bus='usb'/></disk>", False),
        ("<interface type='user'/>", True),
        ("<interface type='user'><model type='spapr-vlan'/></interface>", False),
        (f"<interface type='user'><model type='spapr-vlan'/>{PCI}</interface>", True),
        ("<interface type='hostdev'><source><address type='usb'/></source></interface>", False),
        ("<controller type='usb'/>", True),
        ("<controller type='usb' model='none'/>", False),
        ("<controller type='scsi'/>", False),
        ("<controller type='scsi' model='virtio-scsi'/>", True),
        ("<controller type='nvme'/>", True),
        ("<hostdev mode='subsystem' type='pci'/>", True),
        ("<hostdev mode='subsystem' type='pci'><address type='unassigned'/></hostdev>", False),
        ("<hostdev mode='capabilities' type='pci'/>", False),
        ("<hostdev mode='subsystem' type='mdev' model='vfio-ap'/>", False),
        ("<input type='passthrough'/>", True),
        ("<input type='tablet' bus='usb'/>", False),
        ("<memballoon model='virtio'><address type='ccw'/></memballoon>", False),
        ("<tpm model='tpm-spapr'/>", False),
        ("<unheard-of/>", False),
        (f"<unheard-of>{PCI}</unheard-of>", True),
    ],
)
def test_sits_on_pci(element: str, expected: bool) -> None:
    assert sits_on_pci(etree.fromstring(element)) == expected


def test_an_unknown_model() -> None:
    """An address answers what the model does not."""
    with pytest.raises(InputError, match="unknown model 'hologram': cannot tell whether it is a PCI device"):
        sits_on_pci(etree.fromstring("<video><model type='hologram'/></video>"))
    assert sits_on_pci(etree.fromstring(f"<video><model type='hologram'/>{PCI}</video>"))
