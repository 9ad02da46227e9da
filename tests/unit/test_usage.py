"""What the host uses its own devices for, from faked sysfs and proc trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.host.sysfs import read_devices
from papr_hook.host.usage import with_host_use
from papr_hook.model import PciAddress
from tests.helpers import sysfs as hosts
from tests.helpers.sysfs import Pci

FREE, USED = PciAddress(1, 1, 0, 0), PciAddress(1, 1, 0, 1)

MOUNTED = {"self/mountinfo": "22 1 253:0 / / rw - ext4 /dev/dm-0 rw\n"}
SWAPPED = {"swaps": "Filename Type Size Used Priority\n/dev/dm-0 partition 1 0 -2\n"}
ROUTED = {"net/route": "Iface Destination ...\nbr0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"}
ROUTED6 = {"net/ipv6_route": f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} 400 1 0 3 br0\n"}
OTHERS = {
    "self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\nshort line\n",
    "swaps": "Filename Type Size Used Priority\n",
    "net/route": "Iface Destination ...\nbr0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
    "net/ipv6_route": f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} 400 1 0 3 lo\n",
}


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """Make a host whose second function holds a disk below device mapper, and an interface in a bridge."""
    root = hosts.write_host(tmp_path / "sys", {str(FREE): Pci(5), str(USED): Pci(5)})
    used = (root / "bus/pci/devices" / str(USED)).resolve()
    disk, mapped = used / "nvme/nvme0/nvme0n1/nvme0n1p1", root / "devices/virtual/block/dm-0"
    disk.mkdir(parents=True)
    (mapped / "slaves").mkdir(parents=True)
    (mapped / "slaves/nvme0n1p1").symlink_to(disk)
    for folder, name in (("dev/block", "253:0"), ("class/block", "dm-0")):
        (root / folder).mkdir(parents=True)
        (root / folder / name).symlink_to(mapped)
    interface, bridge = used / "net/eth1", root / "devices/virtual/net/br0"
    interface.mkdir(parents=True)
    (interface / "device").symlink_to(used)
    bridge.mkdir(parents=True)
    (bridge / "lower_eth1").symlink_to(interface)
    (root / "class/net").mkdir(parents=True)
    (root / "class/net/br0").symlink_to(bridge)
    return root


def write_proc(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "use"),
    [
        (MOUNTED, "a mounted disk"),
        (SWAPPED, "a mounted disk"),
        (ROUTED, "its default route"),
        (ROUTED6, "its default route"),
        (OTHERS, None),
        ({}, None),
    ],
    ids=["mount", "swap", "ipv4", "ipv6", "others", "no-proc"],
)
def test_use_of_a_device(tmp_path: Path, sysfs: Path, files: dict[str, str], use: str | None) -> None:
    """A disk that is mounted or swapped to, and the device of a default route, are found through stacked devices."""
    devices = with_host_use(read_devices([FREE], sysfs), sysfs, write_proc(tmp_path / "proc", files))
    assert devices[USED].used_for == use
    assert devices[FREE].used_for is None


def test_cycles_end(tmp_path: Path, sysfs: Path) -> None:
    """Interfaces and disks that are stacked on themselves do not keep the search from ending."""
    bridge, mapped = sysfs / "devices/virtual/net/br0", sysfs / "devices/virtual/block/dm-0"
    (bridge / "lower_br0").symlink_to(bridge)
    (mapped / "slaves/dm-0").symlink_to(mapped)
    proc = write_proc(tmp_path / "proc", {**MOUNTED, **ROUTED})
    assert with_host_use(read_devices([FREE], sysfs), sysfs, proc)[USED].used_for == "a mounted disk"
