"""libvirt as the judge: what it makes of a layout is what was asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from hypothesis import given, settings

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.errors import InputError, LayoutError
from papr_hook.model import Device, Guest
from tests.harness.libvirt_host import Host
from tests.helpers.generate import Case, cases
from tests.helpers.libvirt_view import STARTED, check_device_tree, disks_of, made_of, phbs, startable, without_kvm
from tests.helpers.paths import CORPUS, GOLDEN, NO_CORPUS


@pytest.fixture(scope="module")
def connection(host: Host) -> Iterator[libvirt.virConnect]:
    """A connection to a host without the hook."""
    libvirt.registerErrorHandler(lambda context, error: None, None)
    found = libvirt.open(host.uri)
    yield found
    found.close()


def refusal(connection: libvirt.virConnect, definition: bytes, flags: int) -> str | None:
    """Why libvirt does not take a definition."""
    try:
        made_of(connection, definition, flags)
    except libvirt.libvirtError as error:
        return str(error)
    return None


def check_what_libvirt_makes(connection: libvirt.virConnect, given: bytes) -> None:
    """Lay a definition out, have libvirt define it, and compare."""
    given = without_kvm(given)
    analysis = pipeline.analyze(given, Config())
    result = analysis.apply_layout()
    laid_out, made = result.data, result.layout
    for flags in (libvirt.VIR_DOMAIN_DEFINE_VALIDATE, 0):
        refused = refusal(connection, laid_out, flags)
        if refused is not None:
            before = refusal(connection, given, flags)
            assert before is not None, f"libvirt takes it as it was, but not laid out: {refused}"
    if refused is not None or made is None:
        return
    found = made_of(connection, laid_out, 0)
    assert not found.bridges
    assert phbs(found) == [(phb.index, phb.target, phb.node) for phb in made.phbs]
    asked = sorted(str(place) for place in made.addresses)
    assert sorted(str(device.address) for device in found.devices) == asked


def first_nic(guest: Guest) -> Device | None:
    """The first emulated NIC of a guest."""
    return next((device for device in guest.devices if device.is_interface and not device.passthrough), None)


def check_first_nic(connection: libvirt.virConnect, given: bytes) -> None:
    """The first emulated NIC has the address that libvirt alone gives it, if that is one on vPHB 0."""
    given = without_kvm(given)
    analysis = pipeline.analyze(given, Config())
    if analysis.guest is None or refusal(connection, given, 0) is not None:
        return
    written, alone = first_nic(analysis.guest), first_nic(made_of(connection, given, 0))
    if written is None or alone is None or alone.address is None or alone.address.bus != 0:
        return
    if written.address is None and any(nic_has_vphb_0(device) for device in analysis.guest.devices):
        return  # vPHB 0 belongs to a NIC with an address there
    laid_out = domainxml.read(analysis.apply_layout().data).guest
    assert laid_out is not None
    nic = first_nic(laid_out)
    assert nic is not None
    assert nic.address == alone.address


def nic_has_vphb_0(device: Device) -> bool:
    """Whether a device is an interface with an address on vPHB 0."""
    return device.is_interface and device.address is not None and device.address.bus == 0


OTHER_MACHINES = {"x86-in.xml", "powernv-in.xml"}


@pytest.mark.parametrize("name", sorted({file.name for file in GOLDEN.glob("*-in.xml")} - OTHER_MACHINES))
def test_golden(connection: libvirt.virConnect, name: str) -> None:
    """Each golden pair, as libvirt sees it."""
    check_what_libvirt_makes(connection, (GOLDEN / name).read_bytes())
    check_first_nic(connection, (GOLDEN / name).read_bytes())


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"{NO_CORPUS} in {CORPUS}")
@pytest.mark.parametrize("file", sorted((CORPUS / "pseries").glob("*.xml")), ids=lambda file: file.stem)
def test_corpus(connection: libvirt.virConnect, file: Path) -> None:
    """Each real definition, as libvirt sees it."""
    check_what_libvirt_makes(connection, file.read_bytes())
    check_first_nic(connection, file.read_bytes())


@settings(max_examples=int(os.environ.get("PAPR_TEST_GENERATED", "150")))
@given(cases())
def test_generated(connection: libvirt.virConnect, case: Case) -> None:
    """Definitions that nobody wrote, as libvirt sees them."""
    with contextlib.suppress(InputError, LayoutError):
        check_what_libvirt_makes(connection, case.data)


@pytest.mark.parametrize("name", STARTED)
def test_device_tree(host: Host, root: Path, tmp_path: Path, name: str) -> None:
    """QEMU's own device tree has the PHBs and devices of the layout, each at its address."""
    definition = startable(name, tmp_path)
    for file in disks_of(definition):
        Path(file).write_bytes(bytes(512))
    tree = root / "tree.dtb"
    host.virsh("create", "--paused", "/dev/stdin", input=definition.decode())
    try:
        host.virsh("qemu-monitor-command", "judged", "--hmp", f"dumpdtb {tree}")
        check_device_tree(definition, tree.read_bytes())
    finally:
        host.virsh("destroy", "judged")
        tree.unlink(missing_ok=True)
