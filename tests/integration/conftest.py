"""Fixtures with real parts, which need root: hosts with a libvirtd, and gateways in front of them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.gateway_host import GatewayHost
from tests.harness.libvirt_host import Host
from tests.helpers.polling import wait_until
from tests.helpers.sysfs import VIRTUAL_FUNCTIONS, write_sysfs


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """Make a directory for hosts, disks and consoles; its path is short, because sockets lie below it."""
    path = Path(tempfile.mkdtemp(prefix="papr-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def capability_cache(root: Path) -> Path:
    """Probe the emulators' capabilities, once for all hosts."""
    path = root / "capabilities"
    with Host(root, "probing") as host:
        host.virsh("domcapabilities", "--arch", "ppc64", "--machine", "pseries", "--virttype", "qemu")
        host.save_cache(path)
    return path


@pytest.fixture(scope="session")
def host(root: Path, capability_cache: Path) -> Iterator[Host]:
    """Start a host that all tests share: a test removes from it what it put there."""
    with Host(root, "host", capability_cache) as one:
        yield one


@pytest.fixture(scope="session")
def two_hosts(root: Path, capability_cache: Path) -> Iterator[tuple[Host, Host]]:
    """Start two hosts that all tests share, to migrate a guest from one to the other."""
    with Host(root, "north", capability_cache) as north, Host(root, "south", capability_cache) as south:
        yield north, south


@pytest.fixture
def make_host(root: Path, capability_cache: Path) -> Iterator[Callable[[str], Host]]:
    """Return what starts a host of a given name, which lives as long as the test. A start takes 0.3 s."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Host(root, name, capability_cache))


@pytest.fixture
def disk(root: Path) -> Iterator[Path]:
    """An empty disk that can hold snapshots."""
    file = root / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "1G"], check=True)
    yield file
    file.unlink()


@pytest.fixture(scope="module")
def gateway(root: Path, capability_cache: Path) -> Iterator[GatewayHost]:
    """Start a host behind a gateway, which the tests of a module share."""
    with Host(root, "gated", capability_cache) as host:
        gated = GatewayHost(host)
        gated.start()
        yield gated
        gated.stop()


@pytest.fixture
def functions(gateway: GatewayHost, root: Path) -> Iterator[list[str]]:
    """Show libvirt and papr-hook virtual functions that this machine does not have, and return their addresses."""
    tree = write_sysfs(root / "sys", VIRTUAL_FUNCTIONS)
    gateway.host.write("/etc/papr-hook.conf", f"[papr-hook]\nsysfs = {tree}\n")
    gateway.host.run(["mount", "--bind", str(tree / "bus/pci"), "/sys/bus/pci"])
    yield list(VIRTUAL_FUNCTIONS)
    gateway.host.run(["umount", "/sys/bus/pci"])
    gateway.host.run(["rm", "/etc/papr-hook.conf"])
    for path in sorted(tree.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    tree.rmdir()


@pytest.fixture
def own(make_host: Callable[[str], Host]) -> Iterator[GatewayHost]:
    """Start a host behind a gateway for one test, which may kill something."""
    gated = GatewayHost(make_host("own"))
    gated.start()
    yield gated
    gated.stop()


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove all guests from the shared gateway host after a test, and wait until no process serves a client."""
    yield
    if "gateway" in request.fixturenames:
        gated: GatewayHost = request.getfixturevalue("gateway")
        for name in gated.host.virsh("list", "--all", "--name").stdout.split():
            gated.host.virsh("destroy", name, check=False)
            gated.host.virsh("undefine", name, "--managed-save", check=False)
        wait_until(lambda: gated.clients() == 0)
