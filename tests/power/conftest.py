"""Fixtures: a POWER host, booted once for all tests, with and without papr-hook. They need root.

PAPR_TEST_CACHE keeps the host's image.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.booted_host import make_root
from tests.harness.guest_image import Image

from .guests import IMAGE
from .host import CHECKOUT, SHARE, PowerHost
from .image import PowerImage, build


@pytest.fixture(scope="session")
def power_image(cache: Path) -> PowerImage:
    """Build what the POWER host boots."""
    return build(cache)


@pytest.fixture(scope="session")
def qemu_root(cache: Path) -> Path:
    """Make the root of the release whose QEMU emulates the host."""
    return make_root("trixie", cache)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Name a directory that does not exist. Its path is short, because sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="papr-") as name:
        yield Path(name) / "power"


@pytest.fixture(scope="session")
def bare(power_image: PowerImage, image: Image, qemu_root: Path) -> Iterator[PowerHost]:
    """Boot the POWER host with the project's files and what guests boot, and install nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="papr-") as name,
        PowerHost(power_image, qemu_root, Path(name) / "power") as host,
    ):
        for source, target in ((image.kernel, IMAGE.kernel), (image.initrd, IMAGE.initrd)):
            shutil.copyfile(source, host.share / target.name)
            host.run("cp", f"{SHARE}/{target.name}", str(target))
        host.copy_project()
        yield host


@pytest.fixture(scope="session")
def host(bare: PowerHost) -> PowerHost:
    """Install papr-hook on the POWER host."""
    bare.run(f"{CHECKOUT}/install.sh")
    return bare
