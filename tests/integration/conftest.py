"""Fixtures with real parts: hosts with a libvirtd, and a guest image.

They need root. The guest image is kept in the directory that the environment variable PAPR_TEST_CACHE names, or made
anew for each run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import guest_image as guest
from tests.harness.libvirt_host import Host


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """Make a directory for hosts, disks and consoles; its path is short, because sockets lie below it."""
    path = Path(tempfile.mkdtemp(prefix="papr-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def image(root: Path) -> guest.Image:
    """Build what a test guest boots."""
    cache = os.environ.get("PAPR_TEST_CACHE")
    return guest.build(Path(cache).resolve() if cache else root / "cache")


@pytest.fixture(scope="session")
def seed(root: Path) -> Path:
    """Probe the emulators' capabilities, once for all hosts."""
    path = root / "seed"
    with Host(root, "seed-host") as host:
        host.virsh("domcapabilities", "--arch", "ppc64", "--machine", "pseries", "--virttype", "qemu")
        host.save_cache(path)
    return path


@pytest.fixture(scope="session")
def host(root: Path, seed: Path) -> Iterator[Host]:
    """Start a host that all tests share: a test removes from it what it put there."""
    with Host(root, "host", seed) as one:
        yield one


@pytest.fixture(scope="session")
def two_hosts(root: Path, seed: Path) -> Iterator[tuple[Host, Host]]:
    """Start two hosts that all tests share, to migrate a guest from one to the other."""
    with Host(root, "north", seed) as north, Host(root, "south", seed) as south:
        yield north, south


@pytest.fixture
def make_host(root: Path, seed: Path) -> Iterator[Callable[[str], Host]]:
    """Return what starts a host of a given name, which lives as long as the test. A start takes 0.3 s."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Host(root, name, seed))


@pytest.fixture
def disk(root: Path) -> Iterator[Path]:
    """An empty disk that can hold snapshots."""
    file = root / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "1G"], check=True)
    yield file
    file.unlink()
