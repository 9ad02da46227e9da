"""A guest behind the gateway, on each release: after every step of its life it has the same layout and data."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness import guest
from tests.harness.booted_host import make_root
from tests.harness.gateway_host import GatewayHost
from tests.harness.guest_image import Image
from tests.harness.libvirt_host import Host
from tests.helpers.domain_xml import file_disk, mac
from tests.helpers.guests import addresses_of, complies, crowded, old_guest
from tests.helpers.polling import wait_until

RELEASES = ("bookworm", "trixie")
"""libvirt 9.0, which the machine has, and 11.3."""

WRITE = (
    "mkdir -p /run/w; (n=0; while :; do n=$((n+1)); printf '%015d\\n' $n | "
    "dd of=/dev/vda bs=16 seek=$((65536+n%4096)) conv=notrunc,fsync 2>/dev/null && echo $n >/run/w/new && "
    "mv /run/w/new /run/w/n || break; sleep 0.1; done) >/dev/null 2>&1 &"
)
"""Has a guest write numbers to its disk until that fails, each when the one before is on the disk.

A guest of Debian 12 does not: with QEMU 7.2 under TCG, a sleep may never end after a migration, or the kernel runs out
of memory. Neither happens with QEMU 10.0 of Debian 13.
"""

ROUNDS = 10
"""Migrations there and back."""

MakeHost = Callable[[str], Host]


@pytest.fixture(scope="module", params=RELEASES)
def make_release_host(request: pytest.FixtureRequest, root: Path, cache: Path) -> Iterator[MakeHost]:
    """Return what starts a host of a release. All of them live as long as the module's tests of that release."""
    release = None if request.param == "bookworm" else make_root(request.param, cache, "none")
    capabilities = root / f"capabilities-{request.param}"
    hosts: list[Host] = []

    def make(name: str) -> Host:
        known = capabilities if capabilities.exists() else None
        hosts.append(Host(root, f"{name}-{request.param}", known, release))
        hosts[-1].start()
        if known is None:
            hosts[-1].virsh("domcapabilities", "--arch", "ppc64", "--machine", "pseries", "--virttype", "qemu")
            hosts[-1].save_cache(capabilities)
        return hosts[-1]

    yield make
    for host in hosts:
        host.stop()


def gate(host: Host) -> Iterator[GatewayHost]:
    """Start a gateway in front of a host's libvirt, and end it."""
    gated = GatewayHost(host)
    gated.start()
    yield gated
    gated.stop()


@pytest.fixture(scope="module")
def north(make_release_host: MakeHost) -> Iterator[GatewayHost]:
    """Start a host behind a gateway."""
    yield from gate(make_release_host("north"))


@pytest.fixture(scope="module")
def south(make_release_host: MakeHost) -> Iterator[GatewayHost]:
    """Start another host behind a gateway."""
    yield from gate(make_release_host("south"))


@pytest.fixture(scope="module")
def bare(make_release_host: MakeHost) -> Host:
    """Start a host without papr-hook."""
    return make_release_host("bare")


class Life:
    """A running guest, with what must not change."""

    def __init__(self, host: Host, image: Image, root: Path, disk: Path) -> None:
        self.host = host
        self.console = root / "g.console"
        self.console.unlink(missing_ok=True)
        host.define(old_guest(image, root, crowded() + file_disk(disk, "vda"), memory=1024))
        host.virsh("start", "g")
        guest.wait_for(self.console)
        self.run("dd if=/dev/urandom of=/dev/vda bs=65536 count=8 conv=notrunc 2>/dev/null; sync")
        self.addresses = addresses_of(host.dumpxml("g"))
        self.devices = self._devices()
        self.sum = self._sum()
        assert complies(host.dumpxml("g"))

    def run(self, text: str) -> str:
        """Run a command in the guest."""
        return guest.command(self.host, "g", text)

    def check(self, name: str = "g") -> None:
        """Assert that the guest has its layout, in both domain XMLs and in its Linux, and its data."""
        assert addresses_of(self.host.dumpxml(name)) == self.addresses
        assert addresses_of(self.host.dumpxml(name, "--inactive")) == self.addresses
        assert self._devices() == self.devices
        assert self._sum() == self.sum

    def boot(self) -> None:
        """Start the guest, and wait until its Linux is up."""
        self.console.write_text("")
        self.host.virsh("start", "g")
        guest.wait_for(self.console)

    def written(self) -> int:
        """Return the last number that the guest wrote."""
        return int(self.run("cat /run/w/n"))

    def check_writes(self) -> None:
        """Assert that the guest goes on writing, if it ever did, and that its disk has what it wrote."""
        if self.host.release is None:
            return
        before = self.written()
        wait_until(lambda: self.written() > before)
        number = int(self.run("n=$(cat /run/w/n); dd if=/dev/vda bs=16 skip=$((65536+n%4096)) count=1 2>/dev/null"))
        assert number >= before

    def _devices(self) -> list[str]:
        return self.run("for d in /sys/bus/pci/devices/*; do echo ${d##*/} $(cat $d/device); done").splitlines()

    def _sum(self) -> str:
        return self.run("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=65536 count=8 2>/dev/null | md5sum")


@pytest.fixture
def life(north: GatewayHost, image: Image, root: Path, disk: Path) -> Iterator[Life]:
    """Start the guest on the first host; it is gone from there after the test."""
    one = Life(north.host, image, root, disk)
    yield one
    for command in (("destroy", "g"), ("undefine", "g", "--managed-save", "--snapshots-metadata")):
        one.host.virsh(*command, check=False)


def test_states(life: Life, root: Path) -> None:
    """Save and restore, and a managed save over a restart of libvirtd."""
    saved = str(root / "saved")
    life.host.virsh("save", "g", saved)
    life.host.virsh("restore", saved)
    life.check()
    life.host.virsh("managedsave", "g")
    life.host.restart()
    life.host.virsh("start", "g")
    life.check()
    (root / "saved").unlink()


def test_snapshots(life: Life) -> None:
    """A snapshot with memory, one of the disk, and reverts to both, running or not."""
    life.host.virsh("snapshot-create-as", "g", "memory")
    life.run("dd if=/dev/zero of=/dev/vda bs=65536 count=8 conv=notrunc 2>/dev/null; sync")
    life.host.virsh("snapshot-revert", "g", "memory")
    life.check()
    life.host.virsh("destroy", "g")
    life.host.virsh("snapshot-create-as", "g", "disk")
    life.console.write_text("")
    life.host.virsh("snapshot-revert", "g", "disk", "--running")
    guest.wait_for(life.console)
    life.check()
    life.host.virsh("destroy", "g")
    life.host.virsh("snapshot-revert", "g", "disk")
    life.boot()
    life.check()
    for name in ("disk", "memory"):
        life.host.virsh("snapshot-delete", "g", name)


def test_external_snapshots(life: Life, north: GatewayHost, root: Path) -> None:
    """A guest that lost its layout gets it back before its external snapshot is deleted, or reverted to and started.

    libvirt 9.0 can do neither, and says so.
    """
    overlay = root / "overlay.qcow2"
    life.host.virsh("destroy", "g")
    laid_out = life.host.dumpxml("g", "--inactive")
    spec = f"vda,snapshot=external,file={overlay}"
    for steps in (["snapshot-revert", "g", "external", "--running"], ["snapshot-delete", "g", "external"]):
        north.via_daemon("define", "/dev/stdin", input=strip_layout(laid_out))
        assert not complies(life.host.dumpxml("g", "--inactive"))
        life.host.virsh("snapshot-create-as", "g", "external", "--disk-only", "--diskspec", spec)
        life.console.write_text("")
        done = life.host.virsh(*steps, check=False)
        if done.returncode != 0:
            assert "not supported" in done.stderr
            life.host.virsh("start", "g")
        elif steps[0] == "snapshot-delete":
            life.host.virsh("start", "g")
        assert complies(life.host.dumpxml("g"))
        guest.wait_for(life.console)
        life.check()
        life.host.virsh("destroy", "g")
        life.host.virsh("snapshot-delete", "g", "external", "--metadata", check=False)
        for file in root.glob("overlay*"):
            file.unlink()


def strip_layout(xml: str) -> str:
    """Return domain XML without PCI addresses and pci-roots, so that libvirt puts all devices onto vPHB 0."""
    xml = re.sub(r"<controller type='pci'.*?</controller>", "", xml, flags=re.DOTALL)
    return re.sub(r"<address type='pci'.*?/>", "", xml)


def test_rename_and_clone(life: Life, root: Path, disk: Path) -> None:
    """A renamed guest keeps its layout, and a clone has it with its own MACs and disk."""
    life.host.virsh("destroy", "g")
    life.host.virsh("domrename", "g", "h")
    assert addresses_of(life.host.dumpxml("h", "--inactive")) == life.addresses
    life.host.virsh("domrename", "h", "g")
    copy = root / "copy.qcow2"
    subprocess.run(["cp", str(disk), str(copy)], check=True)
    xml = life.host.dumpxml("g", "--inactive")
    # As virt-clone does: everything but the identity stays.
    xml = re.sub("<uuid>.*</uuid>", "", xml).replace("<name>g<", "<name>c<").replace(str(disk), str(copy))
    for number in (1, 2):
        xml = xml.replace(mac(number), mac(number + 0x10))
    life.host.define(xml)
    cloned = life.host.dumpxml("c", "--inactive")
    assert complies(cloned)
    assert sorted(addresses_of(cloned).values()) == sorted(life.addresses.values())
    life.host.virsh("undefine", "c")
    copy.unlink()
    life.boot()
    life.check()


@pytest.fixture(scope="module")
def moving(north: GatewayHost, image: Image, root: Path) -> Iterator[Life]:
    """Start a guest that writes to its disk, and that the tests of migrations share."""
    disk = root / "moving.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    one = Life(north.host, image, root, disk)
    if north.host.release is not None:
        one.run(WRITE)
        wait_until(lambda: one.run("ls /run/w") != "")
    yield one
    one.host.virsh("destroy", "g", check=False)
    one.host.virsh("undefine", "g", check=False)
    disk.unlink()


def test_a_migration_that_is_cancelled(moving: Life, south: GatewayHost) -> None:
    """The guest goes on where it is."""
    moving.host.virsh("migrate-setspeed", "g", "1")
    with ThreadPoolExecutor() as pool:
        migration = pool.submit(moving.host.migrate, "g", south.host, "--persistent", "--undefinesource")
        wait_until(
            lambda: re.search(r"Data processed: +[1-9]", moving.host.virsh("domjobinfo", "g").stdout) is not None
        )
        moving.host.virsh("domjobabort", "g")
        assert isinstance(migration.exception(), subprocess.CalledProcessError)
    moving.host.virsh("migrate-setspeed", "g", "1000")
    moving.check()
    moving.check_writes()
    assert moving.host.virsh("domstate", "g").stdout.strip() == "running"
    assert "g" not in south.host.virsh("list", "--all", "--name").stdout.split()


def test_migrations_to_and_from_a_host_without_papr_hook(moving: Life, bare: Host) -> None:
    """The layout is in the domain XML, so a host without papr-hook keeps it."""
    home = moving.host
    for target in (bare, home):
        migrate(moving, target)


def test_migrations_there_and_back(moving: Life, south: GatewayHost) -> None:
    """However often it moves, the guest has its layout, and its disk has what it wrote."""
    home = moving.host
    for _ in range(ROUNDS):
        migrate(moving, south.host)
        migrate(moving, home)


def migrate(life: Life, target: Host) -> None:
    """Migrate the guest, and check it on the other side."""
    life.host.migrate("g", target, "--persistent", "--undefinesource")
    assert "g" not in life.host.virsh("list", "--all", "--name").stdout.split()
    life.host = target
    life.check()
    life.check_writes()
