"""libvirt's API as papr-hook uses it, on the hypervisor that libvirt has for tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from papr_hook.errors import LibvirtError
from papr_hook.virt.connection import Connection, connect
from papr_hook.virt.redefinition import Redefinition

pytest.importorskip("libvirt")

UUID = "7a0c1d4e-0000-4000-8000-000000000001"
GUEST = (
    f"<domain type='test'><name>g</name><uuid>{UUID}</uuid><memory>65536</memory><os><type>hvm</type></os></domain>"
).encode()


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Connect to a libvirt with one guest that does not run."""
    with connect("test:///default") as one:
        one.define(GUEST)
        yield one


def test_unreachable() -> None:
    """A libvirt that cannot be reached is one line."""
    with pytest.raises(LibvirtError, match=r"^could not connect to nosuch:///: [^\n]*$"), connect("nosuch:///"):
        pass


@pytest.mark.parametrize("guest", ["g", UUID, UUID.upper()])
def test_guest_by_name_or_uuid(connection: Connection, guest: str) -> None:
    """A guest is found by both."""
    assert connection.uuid(guest) == UUID


def test_read_guests(connection: Connection) -> None:
    """Persistent guests are in the order of their names, each with its state and its domain XML."""
    connection.define(GUEST.replace(b"<name>g", b"<name>f").replace(b"1d4e", b"ffff"))
    connection.start_if_inactive("g")
    guests = {state.name: (state, xml) for state, xml in connection.read_guests()}
    assert [name for name in guests if name in "fg"] == ["f", "g"]
    for name, is_running in (("f", False), ("g", True)):
        state, xml = guests[name]
        assert state == connection.state(name)
        assert state.is_running == is_running
        assert xml == connection.read_persistent_xml(name)
    assert connection.read_guests(autostart=True) == []


def test_guest_whose_name_is_a_uuid(connection: Connection) -> None:
    """A name that looks like a UUID is a name, unless a guest has that UUID."""
    name, uuid = "11111111-2222-4333-8444-555555555555", UUID.replace("1d4e", "ffff")
    connection.define(GUEST.replace(b"<name>g", f"<name>{name}".encode()).replace(UUID.encode(), uuid.encode()))
    assert connection.uuid(name) == uuid


@pytest.mark.parametrize("guest", ["nobody", "11111111-2222-4333-8444-555555555555"])
def test_no_such_guest(connection: Connection, guest: str) -> None:
    """A guest that does not exist is one line that names it."""
    with pytest.raises(LibvirtError, match=f"^could not read guest '{guest}': Domain not found"):
        connection.read_persistent_xml(guest)


def test_redefine_if_unchanged(connection: Connection) -> None:
    """A guest is redefined from the domain XML that it has, and from no other."""
    judged = connection.read_persistent_xml("g")
    assert judged is not None
    data = judged.replace(b"<os>", b"<title>a</title><os>")
    outcome, edited = connection.redefine_if_unchanged("g", judged + b"\n", data)
    assert outcome is Redefinition.DONE
    assert b"<title>a</title>" in edited
    assert connection.read_persistent_xml("g") == edited
    data = judged.replace(b"<os>", b"<title>b</title><os>")
    assert connection.redefine_if_unchanged("g", judged, data) == (Redefinition.CHANGED, b"")
    assert connection.read_persistent_xml("g") == edited


def test_wait_for_job(connection: Connection) -> None:
    """Nothing waits where no other call is at work, and a guest that does not exist is an error."""
    connection.wait_for_job("g")
    with pytest.raises(LibvirtError):
        connection.wait_for_job("nobody")


def test_start_if_inactive(connection: Connection) -> None:
    """A guest is started once."""
    assert connection.start_if_inactive(UUID)
    assert not connection.start_if_inactive(UUID)


def test_guest_is_not_on_autostart(connection: Connection) -> None:
    """A new guest is not started at boot."""
    assert not connection.is_autostarted("g")
