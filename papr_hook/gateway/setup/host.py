"""Query a host about libvirt's daemons and their sockets, and run commands there."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ...errors import SetupError
from .. import protocol

RUN = "/run/libvirt"
AUTH_LIST = 66  # REMOTE_PROC_AUTH_LIST in libvirt src/remote/remote_protocol.x
ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.1

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Daemon:
    """One of libvirt's daemons that serve QEMU guests."""

    name: str

    @property
    def prefix(self) -> str:
        """The common prefix of its sockets' names (libvirt src/remote/meson.build)."""
        return "libvirt" if self.name == "libvirtd" else self.name

    @property
    def socket(self) -> str:
        """The read-write socket that clients connect to."""
        return f"{RUN}/{self.prefix}-sock"

    @property
    def upstream(self) -> str:
        """Its own read-write socket behind the gateway."""
        return f"{RUN}/upstream/{self.prefix}-sock"

    @property
    def conf(self) -> str:
        """Its configuration file."""
        return f"/etc/libvirt/{self.name}.conf"


DAEMONS = (Daemon("virtqemud"), Daemon("libvirtd"))
"""The modular and the monolithic one."""
LIBVIRTD = DAEMONS[1]


class Init(Enum):
    """What starts the daemons of a host."""

    SYSTEMD = "systemd"
    SYSVINIT = "sysvinit"
    OFFLINE = "units of systemd, which does not run"
    """An image that is being built, for instance."""
    NONE = "none of them"


def run_command(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a session of its own, so that Ctrl-C in a terminal does not reach it."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)


class Host:
    """A host's root directory, its systemd, and its libvirt."""

    def __init__(self, root: Path = Path("/"), runner: Runner = run_command) -> None:
        """root: The root directory; runner: runs a command, as run_command() does."""
        self.root = root
        self.run = runner

    def path(self, path: str) -> Path:
        """Return where an absolute path of the host is."""
        return self.root / path.lstrip("/")

    def init(self) -> Init:
        """Return what starts the daemons."""
        if self.path("/run/systemd/system").is_dir():
            return Init.SYSTEMD
        if os.access(self.path("/etc/init.d/libvirtd"), os.X_OK):
            return Init.SYSVINIT
        if any(self.path(f"/usr/lib/systemd/system/{daemon.name}.socket").exists() for daemon in DAEMONS):
            return Init.OFFLINE
        return Init.NONE

    def unit_property(self, unit: str, name: str) -> str:
        """Return a property of a unit, "" if it is empty or unknown."""
        return self.run(["systemctl", "show", "-p", name, "--value", unit]).stdout.strip()

    def active_units(self, *patterns: str) -> list[str]:
        """Return the names of the active units that match, in systemctl's order."""
        argv = ["systemctl", "list-units", "--state=active", "--plain", "--no-legend", "--full", *patterns]
        return [line.split()[0] for line in self.run(argv).stdout.splitlines() if line.strip()]

    def dependents(self, units: Sequence[str]) -> list[str]:
        """Return the active units that systemd stops with any of `units`, and leaves stopped when those start again.

        The gateway's units are left out: they start with the daemon's socket.
        """
        found = list(units)
        for unit in found:  # grows while it is read
            argv = ["systemctl", "show", "--value", unit]
            for name in ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf"):
                argv[2:2] = ["-p", name]
            for other in self.run(argv).stdout.split():
                if other not in found and not other.startswith("papr-hook-"):
                    found.append(other)
        active = self.active_units(*found) if len(found) > len(units) else []
        return [unit for unit in active if unit not in units]

    def listens(self, path: str) -> bool:
        """Return whether a process listens at a socket.

        The file alone does not say so, because it stays when the process ends. Nor does /proc/net/unix: a container
        that shares the host's network may have a socket of the same path.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            try:
                client.connect(str(self.path(path)))
            except BlockingIOError:  # its queue is full
                return True
            except OSError:
                return False
            return True

    def process_of(self, name: str) -> int | None:
        """Return the process ID of a daemon outside of containers, or None if it does not run."""
        for pid in self._processes(name):
            return pid
        return None

    def _processes(self, name: str) -> Iterator[int]:
        proc = self.path("/proc")
        for entry in sorted(proc.glob("[0-9]*")) if proc.is_dir() else ():
            try:
                # A daemon whose package was upgraded runs from a file that no longer exists.
                runs = os.readlink(entry / "exe").rsplit("/", 1)[-1] in (name, f"{name} (deleted)")
                if runs and os.readlink(entry / "ns/pid") == os.readlink(proc / "self/ns/pid"):
                    yield int(entry.name)
            except OSError:
                continue

    def answers(self, path: str, seconds: float = ANSWER_SECONDS) -> bool:
        """Return whether libvirt answers the first call of a client at a socket, within some seconds."""
        deadline = time.monotonic() + seconds
        while not self._answers_now(path, seconds):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _answers_now(self, path: str, seconds: float) -> bool:
        call = protocol.HEADER.pack(
            protocol.HEADER.size, protocol.PROGRAM, protocol.VERSION, AUTH_LIST, protocol.Type.CALL, 0, 0
        )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(seconds)
                client.connect(str(self.path(path)))
                client.sendall(call)
                return len(client.recv(protocol.HEADER.size)) == protocol.HEADER.size
        except OSError:
            return False

    def check_run(self, argv: Sequence[str]) -> None:
        """Run a command. Raises SetupError with the last line that it printed if it fails."""
        try:
            done = self.run(argv)
        except OSError as error:
            raise SetupError(f"{argv[0]}: {error.strerror}") from None
        if done.returncode != 0:
            lines = (done.stderr + done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
            raise SetupError(f"'{' '.join(argv)}' failed: {lines[-1]}")
