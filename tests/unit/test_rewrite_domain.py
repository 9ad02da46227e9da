"""Guests are laid out in every call that defines one or has one start cold, and in no other."""

from __future__ import annotations

import uuid

import pytest

from papr_hook import pipeline
from papr_hook.config import Config
from papr_hook.errors import PaprHookError
from papr_hook.gateway import rewrite_domain
from papr_hook.gateway.protocol import Procedure, Reader, string, uint
from papr_hook.gateway.rewrite import Call, ForwardInTwo
from papr_hook.layout.check import complies
from tests.helpers.domain_xml import at, disk, domain_xml, nic
from tests.helpers.fake_libvirt import GUEST, UUID, FakeLibvirt

CROWDED = domain_xml(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1, running=False)
EDITED = CROWDED.replace(b"<memory>1<", b"<memory>2<")
SNAPSHOT = string(b"before") + GUEST
RUNNING, PAUSED, FORCE = 1, 2, 4
CHILDREN, METADATA_ONLY = 1, 2
FORCE_BOOT = 8


@pytest.fixture(autouse=True)
def hook_fault(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand for the host's hook, which has no fault unless a test adds one to the list."""
    faults: list[str] = []
    monkeypatch.setattr(rewrite_domain, "find_hook_fault", lambda: faults[0] if faults else None)
    return faults


def is_laid_out(data: bytes | None) -> bool:
    """Return whether a domain XML complies."""
    assert data is not None
    return complies(pipeline.analyze(data, Config()).violations())


def snapshot(state: str, disk: str = "internal", inside: bytes = CROWDED) -> bytes:
    """Return the XML of a snapshot."""
    return (
        f"<domainsnapshot><name>before</name><state>{state}</state><disks><disk name='vda' snapshot='{disk}'/></disks>"
        f"{inside.decode()}</domainsnapshot>"
    ).encode()


DEFINITIONS = (
    (Procedure.DOMAIN_CREATE_XML, b""),
    (Procedure.DOMAIN_CREATE_XML_WITH_FILES, b""),
    (Procedure.DOMAIN_DEFINE_XML, b""),
    (Procedure.DOMAIN_DEFINE_XML_FLAGS, b""),
    (Procedure.CONNECT_DOMAIN_XML_TO_NATIVE, string(b"qemu-argv")),
)


@pytest.mark.parametrize(("procedure", "before"), DEFINITIONS)
def test_domain_xml_in_a_call(procedure: Procedure, before: bytes) -> None:
    """It is laid out; what stands before and after it in the call stays."""
    libvirt = FakeLibvirt()
    payload = libvirt.forward(procedure, before + string(CROWDED) + uint(5))
    assert isinstance(payload, bytes)
    reader = Reader(payload.removeprefix(before) if before else payload)
    assert is_laid_out(reader.string())
    assert reader.payload[reader.at :] == uint(5)
    assert "guest 'g': laid out on its way to libvirt" in libvirt.journal


UNPLACED = domain_xml(disk("vda") + nic(1) + nic(2), 0, running=False, extra=f"<uuid>{uuid.UUID(bytes=UUID)}</uuid>")


def laid_out(libvirt: FakeLibvirt, data: bytes) -> bytes:
    """Return what a definition of some domain XML becomes."""
    payload = libvirt.forward(Procedure.DOMAIN_DEFINE_XML, string(data))
    assert isinstance(payload, bytes)
    return Reader(payload).string()


def places(data: bytes) -> dict[str, str]:
    """Return the vPHB's target index and the slot of each device, which make its name in the guest."""
    guest = pipeline.analyze(data, Config()).guest
    assert guest is not None
    targets = {phb.index: phb.target for phb in guest.phbs}
    addresses = {device.name: device.address for device in guest.devices}
    return {name: f"{targets[at.bus]}:{at.slot}" for name, at in addresses.items() if at is not None}


def test_a_guest_that_is_defined_again_without_addresses() -> None:
    """Its devices keep their places, also one that was attached to the running guest alone."""
    first = laid_out(FakeLibvirt(None), UNPLACED)
    moved = first.replace(b"slot='0x01'", b"slot='0x05'")
    assert moved != first
    libvirt = FakeLibvirt(moved)
    again = laid_out(libvirt, UNPLACED)
    assert places(again) == places(moved)
    asked = [call.payload for call in libvirt.calls if call.procedure == Procedure.DOMAIN_GET_XML_DESC]
    assert asked == [GUEST + uint(0)]
    attached = moved.replace(b"<domain ", b"<domain id='7' ").replace(
        b"</devices>", disk("vdx", at(4, 9)).encode() + b"</devices>"
    )
    libvirt = FakeLibvirt(moved, running=attached)
    with_it = laid_out(libvirt, UNPLACED.replace(b"</devices>", disk("vdx").encode() + b"</devices>"))
    assert places(with_it)["<disk> vdx"].endswith(":9")
    assert places(with_it).items() >= places(moved).items()


def test_a_guest_whose_devices_have_places_is_not_asked_for() -> None:
    """Nor one without a UUID, nor one of which libvirt says nothing, and no warning comes of it."""
    libvirt = FakeLibvirt(CROWDED)
    placed = laid_out(FakeLibvirt(None), UNPLACED)
    assert laid_out(libvirt, placed) == placed
    laid_out(libvirt, UNPLACED.replace(b"uuid", b"title"))
    assert libvirt.calls == []
    refused = FakeLibvirt(CROWDED, refused=(Procedure.DOMAIN_GET_XML_DESC,))
    assert laid_out(refused, UNPLACED) == placed
    assert refused.journal == ["guest 'g': laid out on its way to libvirt"]


STARTS = (
    (Procedure.DOMAIN_CREATE, GUEST),
    (Procedure.DOMAIN_CREATE_WITH_FLAGS, GUEST + uint(0)),
    (Procedure.DOMAIN_CREATE_WITH_FILES, GUEST + uint(0)),
    (Procedure.DOMAIN_SET_AUTOSTART, GUEST + uint(1)),
    (Procedure.DOMAIN_SET_AUTOSTART_ONCE, GUEST + uint(1)),
    (Procedure.DOMAIN_SNAPSHOT_DELETE, SNAPSHOT + uint(0)),
    (Procedure.DOMAIN_SNAPSHOT_DELETE, SNAPSHOT + uint(CHILDREN)),
)


@pytest.mark.parametrize(("procedure", "payload"), STARTS)
def test_calls_that_start_a_guest(procedure: Procedure, payload: bytes) -> None:
    """The guest is defined laid out, with its passwords, before the call goes on unchanged."""
    libvirt = FakeLibvirt(CROWDED, snapshot=snapshot("disk-snapshot", "external"))
    assert libvirt.forward(procedure, payload) == payload
    assert is_laid_out(libvirt.defined)
    assert {call.payload for call in libvirt.calls if call.procedure == Procedure.DOMAIN_GET_XML_DESC} == {
        GUEST + uint(3)
    }
    assert libvirt.journal[-1] == "guest 'g': laid out for its next start"


@pytest.mark.parametrize("procedure", [Procedure.DOMAIN_CREATE, Procedure.DOMAIN_CREATE_WITH_FLAGS])
def test_the_loss_of_the_hook_is_noticed(procedure: Procedure, hook_fault: list[str]) -> None:
    """A start that is laid out says in the journal that libvirt runs another hook, and one that complies does not."""
    hook_fault.append("hooks/qemu is another program's")
    payload = GUEST if procedure is Procedure.DOMAIN_CREATE else GUEST + uint(0)
    libvirt = FakeLibvirt(CROWDED)
    assert libvirt.forward(procedure, payload) == payload
    assert libvirt.journal[-1] == "hooks/qemu is another program's"
    assert libvirt.defined is not None
    again = FakeLibvirt(libvirt.defined)
    assert again.forward(procedure, payload) == payload
    assert "hooks/qemu is another program's" not in again.journal


@pytest.mark.parametrize(("procedure", "payload"), STARTS)
def test_an_edit_in_the_middle_is_kept(procedure: Procedure, payload: bytes) -> None:
    """A guest that is edited while it is laid out is laid out again, with the edit."""
    external = snapshot("disk-snapshot", "external")
    libvirt = FakeLibvirt(CROWDED, snapshot=external, edits=[EDITED])
    assert libvirt.forward(procedure, payload) == payload
    assert libvirt.defined is not None and b"<memory>2<" in libvirt.defined
    assert is_laid_out(libvirt.defined)


def test_edits_without_end() -> None:
    """A guest that is edited all the time is not defined over the edits."""
    edits = [CROWDED.replace(b"<memory>1<", f"<memory>{n}<".encode()) for n in range(2, 20)]
    libvirt = FakeLibvirt(CROWDED, edits=edits)
    with pytest.raises(PaprHookError, match="guest 'g': its domain XML changes all the time"):
        libvirt.forward(Procedure.DOMAIN_CREATE, GUEST)
    assert Procedure.DOMAIN_DEFINE_XML_FLAGS not in libvirt.procedures


@pytest.mark.parametrize(
    ("procedure", "payload", "libvirt"),
    [
        (Procedure.DOMAIN_CREATE, GUEST, FakeLibvirt(CROWDED, running=CROWDED)),
        (Procedure.DOMAIN_CREATE, GUEST, FakeLibvirt(CROWDED, managed_save=True)),
        (Procedure.DOMAIN_SET_AUTOSTART, GUEST + uint(0), FakeLibvirt(CROWDED)),
        (Procedure.DOMAIN_SET_AUTOSTART, GUEST + uint(1), FakeLibvirt(None, running=CROWDED)),
        (Procedure.DOMAIN_SNAPSHOT_DELETE, SNAPSHOT + uint(METADATA_ONLY), FakeLibvirt(CROWDED)),
        (Procedure.DOMAIN_SNAPSHOT_DELETE, SNAPSHOT + uint(0), FakeLibvirt(CROWDED, snapshot=snapshot("shutoff"))),
        (Procedure.DOMAIN_SNAPSHOT_DELETE, SNAPSHOT + uint(0), FakeLibvirt(CROWDED, running=CROWDED)),
        (Procedure.DOMAIN_REVERT_TO_SNAPSHOT, SNAPSHOT + uint(0), FakeLibvirt(CROWDED)),
        (
            Procedure.DOMAIN_REVERT_TO_SNAPSHOT,
            SNAPSHOT + uint(RUNNING),
            FakeLibvirt(CROWDED, snapshot=snapshot("running")),
        ),
        (
            Procedure.DOMAIN_REVERT_TO_SNAPSHOT,
            SNAPSHOT + uint(RUNNING),
            FakeLibvirt(None, running=CROWDED, snapshot=snapshot("shutoff")),
        ),
        (
            Procedure.DOMAIN_REVERT_TO_SNAPSHOT,
            SNAPSHOT + uint(RUNNING),
            FakeLibvirt(CROWDED, snapshot=snapshot("shutoff", inside=domain_xml(running=False))),
        ),
        (
            Procedure.DOMAIN_REVERT_TO_SNAPSHOT,
            SNAPSHOT + uint(RUNNING | FORCE),
            FakeLibvirt(CROWDED, managed_save=True, snapshot=snapshot("shutoff")),
        ),
    ],
)
def test_calls_that_stay_as_they_are(procedure: Procedure, payload: bytes, libvirt: FakeLibvirt) -> None:
    """Nothing is defined where nothing starts cold, nor for a transient guest, which would become persistent.

    A start after a revert would restore a managed save, which libvirt's own revert does not.
    """
    assert libvirt.forward(procedure, payload) == payload
    assert not {Procedure.DOMAIN_DEFINE_XML_FLAGS, Procedure.DOMAIN_REVERT_TO_SNAPSHOT} & set(libvirt.procedures)


def test_a_forced_boot_discards_the_saved_state() -> None:
    """So the guest starts cold, and is laid out."""
    libvirt = FakeLibvirt(CROWDED, managed_save=True)
    payload = GUEST + uint(FORCE_BOOT)
    assert libvirt.forward(Procedure.DOMAIN_CREATE_WITH_FLAGS, payload) == payload
    assert is_laid_out(libvirt.defined)


@pytest.mark.parametrize(("flags", "start"), [(RUNNING, 0), (PAUSED, 1)])
@pytest.mark.parametrize("state", ["shutoff", "disk-snapshot"])
@pytest.mark.parametrize("running", [None, CROWDED])
def test_a_revert_that_starts_cold(flags: int, start: int, state: str, running: bytes | None) -> None:
    """It becomes a revert without a start, and a start with the flag of the revert."""
    libvirt = FakeLibvirt(CROWDED, running=running, snapshot=snapshot(state))
    assert libvirt.forward(Procedure.DOMAIN_REVERT_TO_SNAPSHOT, SNAPSHOT + uint(flags | FORCE)) == ForwardInTwo(
        Call(Procedure.DOMAIN_REVERT_TO_SNAPSHOT, SNAPSHOT + uint(FORCE)),
        Call(Procedure.DOMAIN_CREATE_WITH_FLAGS, GUEST + uint(start)),
    )
    assert libvirt.defined == CROWDED


@pytest.mark.parametrize(("procedure", "payload"), STARTS)
def test_guests_that_are_not_laid_out(procedure: Procedure, payload: bytes) -> None:
    """Another machine's guest starts as it is."""
    x86 = CROWDED.replace(b"ppc64", b"x86_64").replace(b"pseries", b"q35")
    libvirt = FakeLibvirt(x86, snapshot=snapshot("disk-snapshot", "external", x86))
    assert libvirt.forward(procedure, payload) == payload
    assert libvirt.defined == x86
