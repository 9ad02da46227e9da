"""The first emulated NIC and the host devices are where libvirt alone puts them.

Each domain XML is defined twice, as it is and laid out. The host's PCI devices and IOMMU groups are faked.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from hypothesis import given, settings

from papr_hook.errors import InputError, LayoutError
from tests.harness.libvirt_host import Host
from tests.helpers.generate import Case, cases
from tests.helpers.libvirt_view import without_kvm
from tests.helpers.like_libvirt_alone import OTHER_MACHINES, FakedHost, check, own_groups
from tests.helpers.paths import CORPUS, GOLDEN, NO_CORPUS


@pytest.fixture(scope="module")
def faked(root: Path, capability_cache: Path) -> Iterator[FakedHost]:
    """Start a host with faked PCI devices."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    tree = root / "sysfs"
    with Host(root, "faked", capability_cache) as host:
        (tree / "bus/pci/devices").mkdir(parents=True)
        host.run(["mount", "--bind", str(tree / "bus/pci"), "/sys/bus/pci"])
        faked = FakedHost(host.uri, tree)
        yield faked
        faked.connection.close()
    shutil.rmtree(tree)


FILES = sorted(file for file in GOLDEN.glob("*-in.xml") if file.name not in OTHER_MACHINES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden(faked: FakedHost, file: Path) -> None:
    """Each golden pair."""
    xml = without_kvm(file.read_bytes())
    with contextlib.suppress(LayoutError):
        check(faked, xml, own_groups(xml), faked.tree)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"{NO_CORPUS} in {CORPUS}")
@pytest.mark.parametrize("file", sorted((CORPUS / "pseries").glob("*.xml")), ids=lambda file: file.stem)
def test_corpus(faked: FakedHost, file: Path) -> None:
    """Each domain XML of other projects."""
    xml = without_kvm(file.read_bytes())
    with contextlib.suppress(LayoutError):
        check(faked, xml, own_groups(xml), faked.tree)


@settings(max_examples=100)
@given(cases())
def test_generated(faked: FakedHost, case: Case) -> None:
    """Random domain XML."""
    with contextlib.suppress(InputError, LayoutError):
        check(faked, without_kvm(case.data), case.topology.iommu_groups, faked.tree)
