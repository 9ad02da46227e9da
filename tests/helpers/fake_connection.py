"""A libvirt without a daemon, for what commands do with guests: its connection, and the guests that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from papr_hook.errors import LibvirtError
from papr_hook.virt.connection import GuestState
from papr_hook.virt.redefinition import Redefinition


@dataclass
class FakeGuest:
    """A guest of a FakeDaemon."""

    xml: bytes
    name: str
    uuid: str
    is_persistent: bool = True
    is_running: bool = False
    has_managed_save: bool = False
    autostart: bool = False


@dataclass
class FakeDaemon:
    """Guests by UUID, and what a connection to them does.

    before_read runs before domain XML is read, and may change it as another client would. refuses has the names of
    guests that libvirt refuses to define, and unreadable the names of guests that it refuses to read. redefinition is
    the result of a redefinition. is_up is False after the daemon has ended or the connection was closed, until the next
    one. monitor answers a command of QEMU's monitor, and agent one of the guest's agent.
    """

    guests: dict[str, FakeGuest] = field(default_factory=dict)
    uris: list[str] = field(default_factory=list)
    networks: dict[str, bytes] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    before_read: Callable[[str], None] = lambda uuid: None
    redefinition: Redefinition = Redefinition.DONE
    is_up: bool = True
    monitor: Callable[[str], str] = lambda command: ""
    agent: Callable[[str], str] = lambda command: ""

    def add(self, name: str, xml: bytes, **state: bool) -> FakeGuest:
        """Add a guest with a UUID of its own."""
        uuid = f"00000000-0000-4000-8000-{len(self.guests):012d}"
        before, _, rest = xml.partition(b"<name>")
        after = rest.partition(b"</name>")[2]
        named = before + f"<name>{name}</name><uuid>{uuid}</uuid>".encode() + after
        self.guests[uuid] = FakeGuest(named, name, uuid, **state)
        return self.guests[uuid]

    @contextmanager
    def connect(self, uri: str) -> Iterator[FakeConnection]:
        """Connect, as virt.connection.connect() does."""
        self.uris.append(uri)
        self.is_up = True
        try:
            yield FakeConnection(self)
        finally:
            self.is_up = False


@dataclass
class FakeConnection:
    """The part of virt.connection.Connection that adopt and doctor use."""

    libvirt: FakeDaemon

    def read_guests(self, autostart: bool = False) -> list[tuple[GuestState, bytes | LibvirtError]]:
        """Return the persistent guests with their domain XML, except guests that are undefined meanwhile."""
        found: list[tuple[GuestState, bytes | LibvirtError]] = []
        for guest in list(self.libvirt.guests.values()):
            if guest.autostart or not autostart:
                state = self.state(guest.uuid)
                self.libvirt.before_read(guest.uuid)
                if guest.name in self.libvirt.unreadable:
                    found.append((state, LibvirtError(f"could not read guest '{guest.name}': access denied")))
                elif guest.uuid in self.libvirt.guests:
                    found.append((state, guest.xml))
        return found

    def state(self, guest: str) -> GuestState:
        """Return the state of a guest."""
        found = self._lookup(guest)
        return GuestState(found.uuid, found.name, found.is_persistent, found.is_running, found.has_managed_save)

    def read_domain_xml(self, guest: str) -> bytes:
        """Return the domain XML of a guest."""
        found = self._lookup(guest)
        self.libvirt.before_read(found.uuid)
        return found.xml

    def xml(self, guest: str, flags: int) -> bytes:
        """Return the domain XML of a guest, whatever the flags are."""
        return self.read_domain_xml(guest)

    def network_xml(self, name: str) -> bytes:
        """Return the XML of a network."""
        return self.libvirt.networks[name]

    def receive_events(self) -> None:
        """Do nothing."""

    def redefine_if_unchanged(self, guest: str, judged: bytes, data: bytes) -> tuple[Redefinition, bytes]:
        """Give a guest other domain XML if it still has what that was made from."""
        if self.read_domain_xml(guest) != judged:
            return Redefinition.CHANGED, b""
        self.define(data)
        return self.libvirt.redefinition, data

    def define(self, definition: bytes) -> None:
        """Give a guest other domain XML."""
        found = next(guest for guest in self.libvirt.guests.values() if guest.uuid.encode() in definition)
        if found.name in self.libvirt.refuses:
            raise LibvirtError("could not define the guest: no")
        found.xml = definition

    def versions(self) -> tuple[int, int]:
        """Return the versions of libvirt and QEMU."""
        return 9_000_000, 7_002_000

    def run_monitor_command(self, guest: str, command: str) -> str:
        """Return what QEMU's monitor prints."""
        self._lookup(guest)
        return self.libvirt.monitor(command)

    def ask_agent(self, guest: str, command: str, seconds: int) -> str:
        """Return the answer of a guest's agent."""
        self._lookup(guest)
        return self.libvirt.agent(command)

    def is_alive(self) -> bool:
        """Return whether the daemon answers."""
        return self.libvirt.is_up

    def _lookup(self, guest: str) -> FakeGuest:
        if not self.libvirt.is_up:
            raise LibvirtError("could not read the guest: end of file")
        for found in self.libvirt.guests.values():
            if guest in (found.name, found.uuid):
                return found
        raise LibvirtError(f"could not read guest '{guest}': no such domain")
