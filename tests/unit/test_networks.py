"""Which libvirt networks hand out host devices, by libvirt's files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from papr_hook.config import Config
from papr_hook.host.networks import Networks, is_hostdev_network, read_networks

HOSTDEV = b"<network><name>vfs</name><forward mode='hostdev' managed='yes'/></network>"
ACTIVE = b"<networkstatus><class_id bitmap='0-2'/>" + HOSTDEV + b"</networkstatus>"
BRIDGED = b"<network><name>lan</name><forward mode='nat'/></network>"


@pytest.mark.parametrize(
    ("network", "hands_out"),
    [
        (HOSTDEV, True),
        (ACTIVE, True),
        (BRIDGED, False),
        (b"<network/>", False),
        (b"<networkstatus/>", False),
        (b"not XML", False),
        (b"", False),
    ],
)
def test_hostdev_network(network: bytes, hands_out: bool) -> None:
    """Only <forward mode='hostdev'> hands out host devices; what cannot be read does not."""
    assert is_hostdev_network(network) == hands_out


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Make libvirt's directories of persistent and active networks."""
    (tmp_path / "qemu/networks").mkdir(parents=True)
    (tmp_path / "run/network").mkdir(parents=True)
    (tmp_path / "qemu/networks/vfs.xml").write_bytes(HOSTDEV)
    (tmp_path / "qemu/networks/lan.xml").write_bytes(BRIDGED)
    (tmp_path / "run/network/transient.xml").write_bytes(ACTIVE)
    return Config(domain_dir=tmp_path / "qemu", libvirt_run_dir=tmp_path / "run")


def test_persistent_and_active_networks(config: Config) -> None:
    """Networks of both directories are found; one without a file, or with a name that is no file's, is neither."""
    names = ["vfs", "lan", "transient", "absent", "../networks/vfs", "nul\0", "x" * 300]
    assert read_networks(names, config) == Networks(frozenset({"vfs", "transient"}), frozenset())


def test_unreadable_networks(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose file this user may not read is said to be unreadable, unless the other file hands out devices."""
    locked = {"lan.xml", "vfs.xml"}
    (config.libvirt_run_dir / "network/vfs.xml").write_bytes(ACTIVE)
    read = Path.read_bytes

    def refuse(file: Path) -> bytes:
        if file.name in locked and file.parent.name == "networks":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert read_networks(["lan", "vfs"], config) == Networks(frozenset({"vfs"}), frozenset({"lan"}))
