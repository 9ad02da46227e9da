"""libvirt's API, through libvirt-python: read guests' domain XML, redefine guests, start them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from ..errors import LibvirtError
from .redefinition import DefinitionEvents, Redefinition

try:
    import libvirt
except ImportError:  # the command works on files without it
    libvirt = None

_UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class GuestState:
    """What libvirt knows about a guest besides its domain XML."""

    uuid: str
    name: str
    is_persistent: bool
    is_running: bool
    has_managed_save: bool


class Connection:
    """An open connection to libvirt.

    A guest is named by its name or its UUID. Every method raises LibvirtError if libvirt refuses the call. Several
    threads may call methods at once.
    """

    def __init__(self, uri: str, connection: libvirt.virConnect) -> None:
        self._uri = uri
        self._connection = connection
        self._events: DefinitionEvents | None = None
        self._definition = threading.Lock()

    def close(self) -> None:
        """Close the connection."""
        if self._events is not None:
            self._events.close()
        self._connection.close()

    def read_guests(self, autostart: bool = False) -> list[tuple[GuestState, bytes | LibvirtError]]:
        """Return all persistent guests with the domain XML of their next start, in the order of their names.

        A guest that another client undefines meanwhile is left out. One that libvirt does not let this client read has
        the error instead.

        Args:
            autostart: Whether to leave out those that libvirt does not start at boot.

        Raises:
            LibvirtError: libvirt does not list them, or its daemon ended.
        """
        flags = libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT
        if autostart:
            flags |= libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART
        with _errors("list the guests"):
            domains = self._connection.listAllDomains(flags)
            running = self._list(flags | libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            saved = self._list(flags | libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
        guests: list[tuple[GuestState, bytes | LibvirtError]] = []
        for domain in sorted(domains, key=lambda domain: str(domain.name())):
            uuid, name = str(domain.UUIDString()), str(domain.name())
            state = GuestState(uuid, name, True, uuid in running, uuid in saved)
            try:
                with _errors(f"read guest '{name}'"), _ignored(libvirt.VIR_ERR_NO_DOMAIN):
                    guests.append((state, _read(domain)))
            except LibvirtError as error:
                if not self.is_alive():
                    raise
                guests.append((state, error))
        return guests

    def state(self, guest: str) -> GuestState:
        """Return what libvirt knows about a guest.

        Args:
            guest: Its name or UUID.
        """
        with _errors(f"read guest '{guest}'"):
            domain = self._lookup(guest)
            running = bool(domain.isActive())
            persistent = not running or bool(domain.isPersistent())
            return GuestState(
                uuid=str(domain.UUIDString()),
                name=str(domain.name()),
                is_persistent=persistent,
                is_running=running,
                has_managed_save=persistent and bool(domain.hasManagedSaveImage()),
            )

    def network_xml(self, name: str) -> bytes:
        """Return the XML of a network.

        Args:
            name: Its name.
        """
        with _errors(f"read network '{name}'"):
            return str(self._connection.networkLookupByName(name).XMLDesc()).encode()

    def versions(self) -> tuple[int, int]:
        """Return the versions of libvirt's daemon and of QEMU, as 1000000 * major + 1000 * minor + release.

        QEMU's is 0 if libvirt knows none for the host's own architecture.
        """
        with _errors("ask for versions"):
            version = int(self._connection.getLibVersion())
        try:
            return version, int(self._connection.getVersion())
        except libvirt.libvirtError:
            return version, 0

    def run_monitor_command(self, guest: str, command: str) -> str:
        """Return what a command of QEMU's human monitor prints. libvirt marks the guest as tainted by it.

        Args:
            guest: its name or UUID.
            command: the command.
        """
        import libvirt_qemu

        with _errors(f"ask the QEMU of guest '{guest}'"):
            flags = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            return str(libvirt_qemu.qemuMonitorCommand(self._lookup(guest), command, flags))

    def ask_agent(self, guest: str, command: str, seconds: int) -> str:
        """Return the answer of a guest's agent, as JSON.

        Args:
            guest: its name or UUID.
            command: the command, as JSON.
            seconds: how long to wait for the answer.
        """
        import libvirt_qemu

        with _errors(f"ask the agent of guest '{guest}'"):
            return str(libvirt_qemu.qemuAgentCommand(self._lookup(guest), command, seconds, 0))

    def is_alive(self) -> bool:
        """Return whether the daemon still answers."""
        try:
            return bool(self._connection.isAlive()) and bool(self._connection.getLibVersion())
        except libvirt.libvirtError:
            return False

    def read_domain_xml(self, guest: str) -> bytes:
        """Return the domain XML of a guest's next start, or of its run if it is transient, with passwords.

        Args:
            guest: its name or UUID.

        Raises:
            LibvirtError: libvirt has no such guest, or refused the call.
        """
        with _errors(f"read guest '{guest}'"):
            domain = self._lookup(guest)
            flags = libvirt.VIR_DOMAIN_XML_SECURE
            if domain.isPersistent():
                flags |= libvirt.VIR_DOMAIN_XML_INACTIVE
            return str(domain.XMLDesc(flags)).encode()

    def read_persistent_xml(self, guest: str) -> bytes | None:
        """Return the domain XML of a guest's next start, with passwords.

        Args:
            guest: its name or UUID.

        Returns:
            The domain XML, or None if the guest is transient.

        Raises:
            LibvirtError: libvirt has no such guest, or refused the call.
        """
        with _errors(f"read guest '{guest}'"):
            domain = self._lookup(guest)
            return _read(domain) if domain.isPersistent() else None

    def redefine_if_unchanged(self, guest: str, judged: bytes, data: bytes) -> tuple[Redefinition, bytes]:
        """Redefine a guest if its domain XML is still what the new one was made from.

        libvirt has no call that compares and sets. What another client does between the reading here and libvirt's
        redefinition is seen afterwards: a guest that it undefined is undefined again, and an edit is reported. That
        takes a round trip and libvirt's parsing of the XML: papr-hook(8) has the measured time. It would take longer
        if libvirt defined several guests at once, so those of other threads wait.

        Args:
            guest: its name or UUID.
            judged: the domain XML that the new one was made from.
            data: the new domain XML.

        Returns:
            Whether the guest was redefined, and what other clients did at the same moment; and the domain XML that
            libvirt has then, if it was.

        Raises:
            LibvirtError: libvirt has no such guest, or refused a call.
        """
        with _errors(f"read guest '{guest}'"):
            domain = self._lookup(guest)
            uuid = str(domain.UUIDString())
        with ExitStack() as watched:
            with self._definition:
                events = self._events_of_definitions()
                watched.enter_context(events.watch(uuid))
                with _errors(f"read guest '{guest}'"):
                    if not domain.isPersistent() or _read(domain).strip() != judged.strip():
                        return Redefinition.CHANGED, b""
                self.define(data)
            with _errors(f"read guest '{guest}'"):
                after = _read(domain)
            with _errors("receive events"):
                outcome = events.judge(uuid)
        if outcome is Redefinition.UNDEFINED:
            self._undefine(uuid)
        return outcome, after

    def receive_events(self) -> None:
        """Connect to libvirt once more, for the events that a redefinition needs, unless that was done before."""
        with self._definition:
            self._events_of_definitions()

    def _events_of_definitions(self) -> DefinitionEvents:
        with _errors("receive events"):
            if self._events is not None and not self._events.is_open():
                self._events.close()
                self._events = None
            if self._events is None:
                self._events = DefinitionEvents(self._uri)
            return self._events

    def wait_for_job(self, guest: str) -> None:
        """Wait until no other call is changing a guest that does not run.

        Calls such as an undefine wait for the guest's job, while reading its domain XML needs none, so a read would
        overtake them. This asks for the memory statistics, which wait for the job too (qemuDomainMemoryStats in
        libvirt's src/qemu/qemu_driver.c), and which a guest that does not run does not have.

        Args:
            guest: its name or UUID.

        Raises:
            LibvirtError: libvirt has no such guest, or refused the call.
        """
        with _errors(f"read guest '{guest}'"):
            domain = self._lookup(guest)
            if not domain.isActive():
                with suppress(libvirt.libvirtError):
                    domain.memoryStats()

    def start_if_inactive(self, guest: str) -> bool:
        """Start a guest that does not run.

        Args:
            guest: its name or UUID.

        Returns:
            Whether it was started; False if it runs.

        Raises:
            LibvirtError: libvirt has no such guest, or could not start it.
        """
        with _errors(f"start guest '{guest}'"):
            domain = self._lookup(guest)
            if domain.isActive():
                return False
            domain.create()
            return True

    def is_autostarted(self, guest: str) -> bool:
        """Tell whether libvirt starts a guest at each boot of the host.

        Args:
            guest: its name or UUID.
        """
        with _errors(f"read guest '{guest}'"):
            return bool(self._lookup(guest).autostart())

    def uuid(self, guest: str) -> str:
        """Return the UUID of a guest.

        Args:
            guest: its name or UUID.
        """
        with _errors(f"read guest '{guest}'"):
            return str(self._lookup(guest).UUIDString())

    def xml(self, guest: str, flags: int) -> bytes:
        """Return a guest's domain XML as libvirt's flags ask for it.

        Args:
            guest: its name or UUID.
            flags: of virDomainXMLFlags.
        """
        with _errors(f"read guest '{guest}'"):
            return str(self._lookup(guest).XMLDesc(flags)).encode()

    def attach(self, guest: str, device: bytes, flags: int) -> None:
        """Attach a device to a guest.

        Args:
            guest: its name or UUID.
            device: the device's XML.
            flags: of virDomainDeviceModifyFlags.
        """
        with _errors("attach the device"):
            self._lookup(guest).attachDeviceFlags(device.decode("utf-8", "replace"), flags)

    def define(self, data: bytes) -> None:
        """Define a guest, or redefine it for its next start.

        Args:
            data: its domain XML.
        """
        with _errors("define the guest"):
            self._connection.defineXML(data.decode())

    def _undefine(self, guest: str) -> None:
        """Undefine a guest, unless another client did so. Its NVRAM stays, without which QEMU's guests may not go."""
        with suppress(libvirt.libvirtError):
            domain = self._lookup(guest)
            with _ignored(libvirt.VIR_ERR_INVALID_ARG):  # a driver that knows no NVRAM
                domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
                return
            domain.undefine()

    def _list(self, flags: int) -> set[str]:
        return {str(domain.UUIDString()) for domain in self._connection.listAllDomains(flags)}

    def _lookup(self, guest: str) -> libvirt.virDomain:
        """Return the guest with a UUID, or else with a name, as virsh does."""
        if _UUID.fullmatch(guest):
            with _ignored(libvirt.VIR_ERR_NO_DOMAIN):
                return self._connection.lookupByUUIDString(guest)
        return self._connection.lookupByName(guest)


@contextmanager
def connect(uri: str) -> Iterator[Connection]:
    """Connect to libvirt, and close the connection in the end.

    Args:
        uri: libvirt's connection URI, e.g. qemu:///system.

    Raises:
        LibvirtError: libvirt-python is not installed, or libvirt cannot be reached.
    """
    if libvirt is None:
        raise LibvirtError("libvirt-python is not installed (package python3-libvirt)")
    libvirt.registerErrorHandler(lambda context, error: None, None)
    with _errors(f"connect to {uri}"):
        connection = Connection(uri, libvirt.open(uri))
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Raise libvirt's errors as LibvirtError, on one line."""
    try:
        yield
    except libvirt.libvirtError as error:
        message = " ".join(str(error).split())
        raise LibvirtError(f"could not {what}: {message}") from None


@contextmanager
def _ignored(code: int) -> Iterator[None]:
    """Ignore the libvirt errors of one code."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != code:
            raise


def _read(domain: libvirt.virDomain) -> bytes:
    """Return the domain XML of a persistent guest's next start, with passwords."""
    return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE)).encode()
