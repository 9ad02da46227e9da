"""A host whose root is a directory of the test, and whose systemctl is a fake that moves sockets as systemd does."""

from __future__ import annotations

import fnmatch
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from papr_hook.gateway.setup.host import Daemon, Host
from papr_hook.gateway.setup.transaction import resolve_in


class FakeHost(Host):
    """A host with systemd and one libvirt daemon.

    Attributes:
        calls: The commands that were run and that may change something.
        fails: Commands that fail, as prefixes.
        active: The active units.
        properties: Properties of units, by unit and name.
        loaded: Whether the daemon's socket is behind the gateway, as systemd has loaded it.
    """

    def __init__(self, root: Path, daemon: Daemon, *, sockets_by: str = "socket") -> None:
        """sockets_by: "socket" if systemd makes the daemon's sockets, "service" if the daemon does."""
        super().__init__(root, self._run)
        self.daemon = daemon
        self.calls: list[str] = []
        self.fails: list[str] = []
        self.active: set[str] = set()
        self.properties: dict[tuple[str, str], str] = {}
        self.loaded = False
        self._listening = ""
        self._maker = f"{daemon.name}.{sockets_by}"
        for directory in ("run/systemd/system", "run/libvirt/upstream", "etc/libvirt"):
            (root / directory).mkdir(parents=True)
        self.path(daemon.conf).write_text("# settings\n")
        self._set_listening("")
        self._start([self._maker])

    def answers(self, path: str, seconds: float = 0.0) -> bool:
        """Return whether the daemon is active."""
        return path == self.daemon.socket and self._maker in self.active

    def listens(self, path: str) -> bool:
        """Return whether the daemon's sockets are at a path."""
        return path == self._listening

    def units(self) -> list[str]:
        """Return what a plan restarts the daemon with."""
        return sorted(unit for unit in self.active if unit.startswith(self.daemon.name))

    def files(self) -> dict[str, str]:
        """Return the files below /etc, with their content or what they link to."""
        found = {}
        for path in sorted(self.path("/etc").rglob("*")):
            if path.is_symlink() or path.is_file():
                found[f"/{path.relative_to(self.root)}"] = os.readlink(path) if path.is_symlink() else path.read_text()
        return found

    def _run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        out = ""
        if argv[1] == "show":
            names = [argv[n + 1] for n, word in enumerate(argv) if word == "-p"]
            out = "\n".join(self._show(argv[-1], name) for name in names)
        elif argv[1] == "list-units":
            out = "\n".join(unit for unit in sorted(self.active) if any(fnmatch.fnmatch(unit, p) for p in argv[2:]))
        else:
            self.calls.append(" ".join(argv))
            if any(self.calls[-1].startswith(prefix) for prefix in self.fails):
                return subprocess.CompletedProcess(argv, 1, "", "Job failed.\n")
            self._change(argv[1], argv[2:])
        return subprocess.CompletedProcess(argv, 0, out, "")

    def _show(self, unit: str, name: str) -> str:
        if name == "ActiveState":
            return "active" if unit in self.active else "inactive"
        if (name, unit) == ("LoadState", f"{self.daemon.name}.socket"):
            return "loaded"
        if (name, unit) == ("Listen", f"{self.daemon.name}.socket"):
            default = f"{self.daemon.upstream if self.loaded else self.daemon.socket} (Stream)"
            return self.properties.get((unit, name), default)
        return self.properties.get((unit, name), "")

    def _change(self, verb: str, units: Sequence[str]) -> None:
        if verb == "daemon-reload":
            self.loaded = self._is_enabled()
        elif verb == "stop":
            self.active -= {unit for unit in self.active if any(fnmatch.fnmatch(unit, p) for p in units)}
        elif verb == "start":
            self._start(units)

    def _start(self, units: Sequence[str]) -> None:
        self.active |= set(units)
        if self._maker in units:
            self._set_listening(self.daemon.upstream if self._is_enabled() else self.daemon.socket)

    def _is_enabled(self) -> bool:
        if self._maker.endswith(".socket"):
            return self.path(f"/etc/systemd/system/{self._maker}.d/papr-hook.conf").is_symlink()
        return "unix_sock_dir" in resolve_in(self.root, self.daemon.conf).read_text()

    def _set_listening(self, path: str) -> None:
        for socket in (self.daemon.socket, self.daemon.upstream):
            self.path(socket).unlink(missing_ok=True)
        if path:
            self.path(path).parent.mkdir(exist_ok=True)
            os.mknod(self.path(path), stat.S_IFSOCK | 0o666)
        self._listening = path
