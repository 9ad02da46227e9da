"""Laying out a guest that other clients change meanwhile: no edit is lost, and none is defined twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from papr_hook import pipeline
from papr_hook.config import Config
from papr_hook.errors import LibvirtError
from papr_hook.hook.adoption import Adoption, Outcome, Prepared, adopt
from papr_hook.virt.connection import Connection
from papr_hook.virt.redefinition import MAX_TRIES, Redefinition
from tests.helpers.paths import GOLDEN

GUEST = (GOLDEN / "pc-shaped-in.xml").read_bytes()
LAID_OUT = (GOLDEN / "pc-shaped-out.xml").read_bytes()


class FakeLibvirt(Connection):
    """A libvirt with one guest, which another client may change before any read.

    data: its domain XML, or None if it was undefined. transient: whether it only runs. before_read: called with the
    number of each read. defined: what was defined, in order. redefinition: what came of a redefinition.
    """

    redefinition = Redefinition.DONE

    def __init__(self, data: bytes | None, transient: bool = False) -> None:
        super().__init__("", None)
        self.data = data
        self.transient = transient
        self.before_read: Callable[[int], None] = lambda number: None
        self.reads = 0
        self.defined: list[bytes] = []

    def read_persistent_xml(self, guest: str) -> bytes | None:
        self.reads += 1
        self.before_read(self.reads)
        if self.data is None:
            raise LibvirtError(f"could not read guest '{guest}': Domain not found")
        return None if self.transient else self.data

    def redefine_if_unchanged(self, guest: str, judged: bytes, data: bytes) -> tuple[Redefinition, bytes]:
        current = self.read_persistent_xml(guest)
        if current is None or current.strip() != judged.strip():
            return Redefinition.CHANGED, b""
        self.defined.append(data)
        self.data = data
        return self.redefinition, data


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return settings of a host without devices."""
    return Config(sysfs=tmp_path, domain_dir=tmp_path, libvirt_run_dir=tmp_path)


def prepare(data: bytes, config: Config) -> Prepared:
    return Prepared(data, pipeline.analyze(data, config).apply_layout())


@pytest.mark.parametrize(
    ("golden", "outcome"),
    [
        ("pc-shaped-in", Outcome.REDEFINED),
        ("pc-shaped-out", Outcome.COMPLIES),
        ("keep-in", Outcome.OPTED_OUT),
        ("x86-in", Outcome.NOT_PSERIES),
    ],
)
def test_outcome(config: Config, golden: str, outcome: Outcome) -> None:
    """A guest is redefined only if its layout changes."""
    libvirt = FakeLibvirt((GOLDEN / f"{golden}.xml").read_bytes())
    assert adopt(libvirt, "uuid", config).outcome is outcome
    assert libvirt.defined == ([LAID_OUT] if outcome is Outcome.REDEFINED else [])


def test_transient_guest(config: Config) -> None:
    """A transient guest has no next start, and is not made a persistent one."""
    libvirt = FakeLibvirt(GUEST, transient=True)
    assert adopt(libvirt, "uuid", config) == Adoption("uuid", Outcome.TRANSIENT)
    assert libvirt.defined == []


@pytest.mark.parametrize("read", [1, 2])
def test_undefined_guest_stays_so(config: Config, read: int) -> None:
    """A guest that another client undefines before it is redefined does not come back."""
    libvirt = FakeLibvirt(GUEST)

    def undefine(number: int) -> None:
        if number == read:
            libvirt.data = None

    libvirt.before_read = undefine
    with pytest.raises(LibvirtError, match="not found"):
        adopt(libvirt, "uuid", config)
    assert libvirt.defined == []


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("edits", [1, 3])
def test_edits_are_kept(config: Config, edits: int, prepared: bool) -> None:
    """An edit that libvirt confirmed after the guest was read is in what is defined."""
    libvirt = FakeLibvirt(GUEST)

    def edit(number: int) -> None:
        if number <= edits and libvirt.data is not None:
            libvirt.data = libvirt.data.replace(b"<os>", b"<description>edit</description><os>", 1)

    libvirt.before_read = edit
    assert adopt(libvirt, "uuid", config, prepare(GUEST, config) if prepared else None).outcome is Outcome.REDEFINED
    assert [data.count(b"<description>edit") for data in libvirt.defined] == [edits]


def test_prepared_layout(config: Config) -> None:
    """A layout that was made before is used without another, if the guest is still the same."""
    libvirt = FakeLibvirt(GUEST + b"\n")
    assert adopt(libvirt, "uuid", config, prepare(GUEST, config)).outcome is Outcome.REDEFINED
    assert (libvirt.reads, libvirt.defined) == (1, [LAID_OUT])


def test_prepared_layout_of_a_transient_guest(config: Config) -> None:
    """A guest that became transient is not made persistent by a layout that was made before."""
    libvirt = FakeLibvirt(GUEST, transient=True)
    assert adopt(libvirt, "uuid", config, prepare(GUEST, config)).outcome is Outcome.TRANSIENT
    assert libvirt.defined == []


def test_edits_without_end(config: Config) -> None:
    """A guest that is redefined all the time is given up, and was never overwritten."""
    libvirt = FakeLibvirt(GUEST)

    def edit(number: int) -> None:
        libvirt.data = GUEST.replace(b"<os>", b"<title>%d</title><os>" % number)

    libvirt.before_read = edit
    with pytest.raises(LibvirtError, match="all the time"):
        adopt(libvirt, "uuid", config)
    assert libvirt.reads == 2 * MAX_TRIES
    assert libvirt.defined == []


@pytest.mark.parametrize(
    ("redefinition", "outcome", "collided"),
    [
        (Redefinition.DONE, Outcome.REDEFINED, False),
        (Redefinition.COLLIDED, Outcome.REDEFINED, True),
        (Redefinition.UNDEFINED, Outcome.UNDEFINED, False),
    ],
)
def test_another_client_at_the_same_moment(
    config: Config, redefinition: Redefinition, outcome: Outcome, collided: bool
) -> None:
    """What another client did while libvirt redefined the guest is told, and the guest is not redefined again."""
    libvirt = FakeLibvirt(GUEST)
    libvirt.redefinition = redefinition
    adoption = adopt(libvirt, "uuid", config)
    assert (adoption.outcome, adoption.collided) == (outcome, collided)
    assert libvirt.defined == [LAID_OUT]
