"""libvirt, through libvirt-python: a guest's definition read, and defined again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import LibvirtError

try:
    import libvirt
except ImportError:  # the command works on files without it
    libvirt = None


@dataclass(frozen=True)
class GuestState:
    """What libvirt knows about a guest besides its domain XML."""

    uuid: str
    name: str
    is_persistent: bool
    is_running: bool
    has_managed_save: bool


class Connection:
    """An open connection to libvirt."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    def guests(self, autostart: bool = False) -> list[str]:
        """Return the UUIDs of all persistent guests, in the order of their names.

        Args:
            autostart: Whether to leave out those that libvirt does not start at boot.

        Raises:
            LibvirtError: libvirt does not list them.
        """
        flags = libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT
        if autostart:
            flags |= libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART
        with _errors("list the guests"):
            guests = self._connection.listAllDomains(flags)
            return [guest.UUIDString() for guest in sorted(guests, key=lambda guest: str(guest.name()))]

    def state(self, guest: str) -> GuestState:
        """Return what libvirt knows about a guest, by its name or UUID. Raises LibvirtError."""
        with _errors(f"read guest '{guest}'"):
            domain = self._lookup(guest)
            persistent = bool(domain.isPersistent())
            return GuestState(
                uuid=str(domain.UUIDString()),
                name=str(domain.name()),
                is_persistent=persistent,
                is_running=bool(domain.isActive()),
                has_managed_save=persistent and bool(domain.hasManagedSaveImage()),
            )

    def network_xml(self, name: str) -> bytes:
        """Return the XML of a network. Raises LibvirtError."""
        with _errors(f"read network '{name}'"):
            return str(self._connection.networkLookupByName(name).XMLDesc()).encode()

    def is_alive(self) -> bool:
        """Return whether the daemon still answers."""
        try:
            return bool(self._connection.isAlive()) and bool(self._connection.getLibVersion())
        except libvirt.libvirtError:
            return False

    def definition(self, guest: str) -> bytes:
        """The definition that a guest's next start will have, passwords and all.

        guest: its name or UUID. A transient guest has only the one that it runs with. Raises
        LibvirtError.
        """
        with _errors(f"read guest '{guest}'"):
            domain = self._lookup(guest)
            flags = libvirt.VIR_DOMAIN_XML_SECURE
            if domain.isPersistent():
                flags |= libvirt.VIR_DOMAIN_XML_INACTIVE
            return str(domain.XMLDesc(flags)).encode()

    def uuid(self, guest: str) -> str:
        """The UUID of a guest, by its name or UUID. Raises LibvirtError."""
        with _errors(f"read guest '{guest}'"):
            return str(self._lookup(guest).UUIDString())

    def xml(self, guest: str, flags: int) -> bytes:
        """The XML of a guest as libvirt's flags (virDomainXMLFlags) ask for it. Raises LibvirtError."""
        with _errors(f"read guest '{guest}'"):
            return str(self._lookup(guest).XMLDesc(flags)).encode()

    def attach(self, guest: str, device: bytes, flags: int) -> None:
        """Attach a device to a guest; flags are libvirt's (virDomainDeviceModifyFlags). Raises LibvirtError."""
        with _errors("attach the device"):
            self._lookup(guest).attachDeviceFlags(device.decode("utf-8", "replace"), flags)

    def is_persistent(self, guest: str) -> bool:
        """Whether libvirt keeps a definition of a guest for its next start."""
        with _errors(f"read guest '{guest}'"):
            return bool(self._lookup(guest).isPersistent())

    def define(self, definition: bytes) -> None:
        """Give a guest a definition for its next start. Raises LibvirtError."""
        with _errors("define the guest"):
            self._connection.defineXML(definition.decode())

    def _lookup(self, guest: str) -> libvirt.virDomain:
        try:
            return self._connection.lookupByName(guest)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
        return self._connection.lookupByUUIDString(guest)


@contextmanager
def connect(uri: str) -> Iterator[Connection]:
    """A connection to libvirt.

    uri: libvirt's name of the host, e.g. qemu:///system. Raises LibvirtError.
    """
    if libvirt is None:
        raise LibvirtError("libvirt-python is not installed (package python3-libvirt)")
    libvirt.registerErrorHandler(lambda context, error: None, None)
    with _errors(f"connect to {uri}"):
        connection = libvirt.open(uri)
    try:
        yield Connection(connection)
    finally:
        connection.close()


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        message = " ".join(str(error).split())
        raise LibvirtError(f"could not {what}: {message}") from None
