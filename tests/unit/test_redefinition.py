"""A guest that another client changes at the very moment of its redefinition, on libvirt's hypervisor for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from papr_hook.errors import LibvirtError
from papr_hook.virt.connection import Connection, connect
from papr_hook.virt.redefinition import Redefinition

libvirt = pytest.importorskip("libvirt")

UUID = "7a0c1d4e-0000-4000-8000-000000000002"
OTHER = "7a0c1d4e-0000-4000-8000-000000000003"
GUEST = f"<domain type='test'><name>g</name><uuid>{UUID}</uuid><memory>65536</memory><os><type>hvm</type></os></domain>"
NEW = GUEST.replace("<memory>", "<title>new</title><memory>").encode()


@pytest.fixture
def other() -> Iterator[Any]:
    """Connect another client, to a libvirt with one guest that does not run."""
    client = libvirt.open("test:///default")
    client.defineXML(GUEST)
    yield client
    client.close()


@pytest.fixture
def redefine(
    other: object, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[], object]], Redefinition]]:
    """Return a function that redefines the guest and lets another client act after the last reading."""
    with connect("test:///default") as connection:
        define = Connection.define

        def run(act: Callable[[], object]) -> Redefinition:
            def define_late(self: Connection, data: bytes) -> None:
                act()
                define(self, data)

            judged = connection.read_persistent_xml("g")
            assert judged is not None
            monkeypatch.setattr(Connection, "define", define_late)
            return connection.redefine_if_unchanged("g", judged, NEW)[0]

        yield run


def guests() -> list[str]:
    """Return the names of the guests that are defined."""
    client = libvirt.open("test:///default")
    try:
        return [guest.name() for guest in client.listAllDomains() if guest.isPersistent()]
    finally:
        client.close()


def test_nothing_at_the_same_moment(redefine: Callable[[Callable[[], object]], Redefinition]) -> None:
    """A guest that nobody else changes is redefined."""
    assert redefine(lambda: None) is Redefinition.DONE


def test_undefined_at_the_same_moment(redefine: Callable[[Callable[[], object]], Redefinition], other: Any) -> None:
    """A guest that another client undefines does not come back."""
    assert redefine(lambda: other.lookupByName("g").undefine()) is Redefinition.UNDEFINED
    assert "g" not in guests()


def test_running_guest_undefined_at_the_same_moment(
    redefine: Callable[[Callable[[], object]], Redefinition], other: Any
) -> None:
    """A running guest that another client undefines stays transient."""

    def undefine() -> None:
        other.lookupByName("g").create()
        other.lookupByName("g").undefine()

    assert redefine(undefine) is Redefinition.UNDEFINED
    assert "g" not in guests()
    other.lookupByName("g").destroy()


def test_edited_at_the_same_moment(redefine: Callable[[Callable[[], object]], Redefinition], other: Any) -> None:
    """An edit of another client that may be overwritten is reported."""
    assert redefine(lambda: other.defineXML(GUEST)) is Redefinition.COLLIDED


def test_undefined_and_defined_at_the_same_moment(
    redefine: Callable[[Callable[[], object]], Redefinition], other: Any
) -> None:
    """A guest that another client undefined and defined again stays, and that is reported."""

    def replace() -> None:
        other.lookupByName("g").undefine()
        other.defineXML(GUEST)

    assert redefine(replace) is Redefinition.COLLIDED
    assert "g" in guests()


def test_another_guest_at_the_same_moment(redefine: Callable[[Callable[[], object]], Redefinition], other: Any) -> None:
    """What happens to other guests does not matter."""
    another = GUEST.replace("<name>g", "<name>h").replace(UUID, OTHER)
    assert redefine(lambda: other.defineXML(another)) is Redefinition.DONE
    other.lookupByName("h").undefine()


def test_guest_that_is_gone(redefine: Callable[[Callable[[], object]], Redefinition], other: Any) -> None:
    """A guest that is undefined before the last reading is an error that names it."""
    other.lookupByName("g").undefine()
    with connect("test:///default") as connection, pytest.raises(LibvirtError, match="'g'"):
        connection.redefine_if_unchanged("g", GUEST.encode(), NEW)
