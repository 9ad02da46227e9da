"""What domain XML says about the model of a device and about what backs it."""

from __future__ import annotations

import pytest
from lxml import etree

from papr_hook.domainxml.details import read_backing, read_model


@pytest.mark.parametrize(
    ("xml", "model", "backing"),
    [
        ("<disk><source file='/d'/><target dev='vda' bus='virtio'/></disk>", "virtio", "/d"),
        ("<disk><source dev='/dev/sda'/><target dev='vda' bus='virtio'/></disk>", "virtio", "/dev/sda"),
        ("<disk><source pool='p' volume='v'/><target dev='vda'/></disk>", None, "v"),
        ("<interface><source bridge='br0'/><model type='e1000e'/></interface>", "e1000e", "br0"),
        ("<controller type='usb' model='qemu-xhci'/>", "qemu-xhci", None),
        ("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>", "virtio", "/dev/urandom"),
        ("<video><model type='vga'/></video>", "vga", None),
        ("<hostdev><source><address domain='0'/></source></hostdev>", None, None),
        ("<filesystem><source dir='/srv'/><target dir='srv'/></filesystem>", None, "/srv"),
        ("<memballoon model=''/>", None, None),
    ],
)
def test_model_and_backing(xml: str, model: str | None, backing: str | None) -> None:
    """The model is the device's own or its disk bus; what backs it is the first name that <source> has."""
    element = etree.fromstring(xml)
    assert (read_model(element), read_backing(element)) == (model, backing)


def test_the_end_of_a_long_name_is_kept() -> None:
    """Two disks in one deep directory can be told apart."""
    path = f"/var/lib/{'images/' * 10}web.qcow2"
    backing = read_backing(etree.fromstring(f"<disk><source file='{path}'/></disk>"))
    assert backing is not None
    assert (backing[:3], len(backing)) == ("...", 60)
    assert path.endswith(backing[3:])
