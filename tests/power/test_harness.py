"""What the POWER host does when it cannot be built, does not boot, or hangs: it says why and leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.harness.guest_image import Image

from .guests import wait_until
from .host import PowerHost
from .image import PowerError, PowerImage, build

pytestmark = pytest.mark.power


def test_a_build_that_fails(tmp_path: Path) -> None:
    """The error has what the build printed last, and no part of the image is kept."""
    with pytest.raises(PowerError, match=r"(?s)not built.*no-such-release"):
        build(tmp_path, "no-such-release")
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_does_not_boot(image: Image, qemu_root: Path, tmp_path: Path, directory: Path) -> None:
    """The error has the console's last lines. The machine has ended, and its files are deleted."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    # The test guest's Linux boots, and has no guest agent.
    shutil.copyfile(image.kernel, tmp_path / "vmlinux")
    shutil.copyfile(image.initrd, tmp_path / "initrd")
    silent = PowerImage(tmp_path / "disk", tmp_path / "vmlinux", tmp_path / "initrd")
    host = PowerHost(silent, qemu_root, directory, boot_seconds=30)
    with pytest.raises(PowerError, match=r"(?s)the POWER host does not boot.*(SLOF|\[ +\d)"):
        host.__enter__()
    assert not directory.exists()


def test_a_command_that_hangs(bare: PowerHost) -> None:
    """The error has the command and the console's last lines, and the host serves the next one."""
    with pytest.raises(PowerError, match=r"(?s)sleep 1000: not ended in 2 s\n.*(\[ +\d+\.\d{6}\]|OK)"):
        bare.run("sleep", "1000", timeout=2)
    wait_until(bare, "! pgrep -x sleep")
