"""The facts that papr-hook doctor reads of a host, and judge.py judges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..virt.hook_files import HookFile


@dataclass(frozen=True)
class HookCall:
    """The last call of the hook that was about a start, a migration or a restore.

    Attributes:
        at: When, in seconds since 1970.
        result: passed, refused or failed, as hooks/qemu notes it, or "" if the note cannot be read.
        operation: libvirt's name of the operation.
        guest: The guest's name.
    """

    at: float
    result: str = ""
    operation: str = ""
    guest: str = ""


@dataclass(frozen=True)
class GuestStart:
    """A guest that runs, and when its QEMU was started, in seconds since 1970."""

    guest: str
    at: float


@dataclass(frozen=True)
class HookFacts:
    """The hook of a host.

    Attributes:
        directory: libvirt's directory of hooks.
        files: The qemu hooks there, in the order in which libvirt runs them.
        failure: Why Python cannot load the modules of the hook, or "".
        last_call: The last call of the hook since the host booted, or None if there was none.
        last_start: Of the guests that run, the one that was started last, or None if no guest runs.
    """

    directory: Path
    files: tuple[HookFile, ...] = ()
    failure: str = ""
    last_call: HookCall | None = None
    last_start: GuestStart | None = None


@dataclass(frozen=True)
class Owner:
    """The rights of a socket: its mode, and the names or numbers of its owner and group."""

    mode: int
    user: str
    group: str

    def __str__(self) -> str:
        return f"{self.mode:04o} {self.user}:{self.group}"


@dataclass(frozen=True)
class SocketFacts:
    """A socket of libvirt's clients or of its daemon.

    Attributes:
        path: Where it is.
        listens: Whether a process listens there.
        owner: Its rights, or None if it does not exist.
        is_link: Whether it is a link to another socket.
    """

    path: str
    listens: bool = False
    owner: Owner | None = None
    is_link: bool = False


@dataclass(frozen=True)
class Process:
    """A process, and the name that ps(1) shows."""

    pid: int
    name: str


@dataclass(frozen=True)
class DaemonFacts:
    """One of libvirt's daemons, and the gateway in front of it.

    Attributes:
        name: The daemon.
        clients: The socket that clients connect to.
        upstream: The daemon's own socket behind the gateway.
        answers: Whether libvirt answers at the clients' socket.
        direct: The clients that are connected to the daemon's own socket, past the gateway.
        network: The sockets for TLS and TCP that are open.
    """

    name: str
    clients: SocketFacts
    upstream: SocketFacts
    answers: bool = False
    direct: tuple[Process, ...] = ()
    network: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        """Whether the host has this daemon."""
        return self.clients.listens or self.upstream.listens


@dataclass(frozen=True)
class GatewayFacts:
    """The gateway of a host.

    Attributes:
        is_enabled: Whether papr-hook gateway enable was run.
        daemons: libvirt's daemons for QEMU guests.
    """

    is_enabled: bool
    daemons: tuple[DaemonFacts, ...]


@dataclass(frozen=True)
class SecurityFacts:
    """What SELinux and AppArmor say about papr-hook.

    Attributes:
        selinux: enforcing or permissive, or None where SELinux is off.
        booleans: SELinux booleans about libvirt's hooks, and whether they are on.
        relabels: What restorecon would change, a line each.
        denials: Accesses since boot that were denied and that name papr-hook's files, a line of the journal each.
    """

    selinux: str | None = None
    booleans: tuple[tuple[str, bool], ...] = ()
    relabels: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()


@dataclass(frozen=True)
class LibvirtFacts:
    """What a connection to libvirt says.

    Attributes:
        error: Why libvirt cannot be reached, or "".
        libvirt: The daemon's version, as libvirt counts: 9000000 is 9.0.0.
        qemu: QEMU's version in the same way, or 0 if libvirt does not know it.
        noncompliant: The names of guests on autostart that do not comply.
    """

    error: str = ""
    libvirt: int = 0
    qemu: int = 0
    noncompliant: tuple[str, ...] = ()
