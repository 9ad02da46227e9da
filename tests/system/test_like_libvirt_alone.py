"""The comparison of tests/integration/test_like_libvirt_alone.py on the libvirt of a second release."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from hypothesis import given, settings

from papr_hook.errors import InputError, LayoutError
from tests.harness.booted_host import BootedHost
from tests.helpers.generate import Case, cases
from tests.helpers.libvirt_view import without_kvm
from tests.helpers.like_libvirt_alone import OTHER_MACHINES, FakedHost, check, own_groups
from tests.helpers.paths import CORPUS, GOLDEN
from tests.helpers.sysfs import write_sysfs

TREE = "/srv/sysfs"


@pytest.fixture(scope="module")
def faked(roots: dict[str, Path]) -> Iterator[FakedHost]:
    """Boot Debian 13 with faked PCI devices."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    with BootedHost(roots["trixie"], "faked") as host:
        host.sh(f"mkdir -p {TREE}/bus/pci/devices; mount --bind {TREE}/bus/pci /sys/bus/pci")
        host.virsh("uri")
        root = str(host.outside(""))
        faked = FakedHost(f"qemu:///system?socket={root}/run/libvirt/libvirt-sock", host.outside(TREE), root)
        yield faked
        faked.connection.close()


def test_golden_and_corpus(faked: FakedHost, tmp_path: Path) -> None:
    """The first emulated NIC and the host devices are where libvirt alone puts them."""
    files = [file for file in GOLDEN.glob("*-in.xml") if file.name not in OTHER_MACHINES]
    files += (CORPUS / "pseries").glob("*.xml")
    compared = 0
    for number, file in enumerate(sorted(files)):
        xml = without_kvm(file.read_bytes(), crypto=True)
        groups = own_groups(xml)
        sysfs = write_sysfs(tmp_path / str(number), {str(address): group for address, group in groups.items()})
        with contextlib.suppress(LayoutError):
            compared += check(faked, xml, groups, sysfs) and bool(groups)
    assert compared > 5


@settings(max_examples=60)
@given(cases())
def test_generated(faked: FakedHost, case: Case) -> None:
    """So are those of random domain XML."""
    groups = case.topology.iommu_groups
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(InputError, LayoutError):
        sysfs = write_sysfs(Path(name), {str(address): group for address, group in groups.items()})
        check(faked, without_kvm(case.data, crypto=True), groups, sysfs)
