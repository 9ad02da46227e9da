"""Plan which files and which services change so that clients of libvirt reach the gateway, or no longer do."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ...errors import SetupError
from . import conf
from .host import DAEMONS, LIBVIRTD, Daemon, Host, Init
from .transaction import EditFile, FileChange, MakeLink, RemovePath, WriteFile, exists, resolve_in

UNITS = "/etc/systemd/system"
SCRIPTS = ("papr-hook-upstream", "papr-hook-gateway")
"""In /etc/init.d, in the order in which they start."""
DROP_IN = "papr-hook.conf"


class Sockets(Enum):
    """Who makes a daemon's sockets; the value is the directory of the drop-ins for that."""

    SYSTEMD = "activated"
    DAEMON = "own-sockets"


@dataclass(frozen=True)
class Command:
    """A command that a plan runs.

    Attributes:
        argv: The command.
        may_fail: Whether the plan goes on if it fails.
        if_changed: A unit; the command is only run if its files differ from what systemd has loaded.
        failure: What its failure means, if the command itself does not say.
    """

    argv: tuple[str, ...]
    may_fail: bool = False
    if_changed: str = ""
    failure: str = ""

    def describe(self) -> str:
        """Return what the command does, for a dry run."""
        return f"run {shlex.join(self.argv)}{', if its files have changed' if self.if_changed else ''}"


@dataclass(frozen=True)
class Restart:
    """A daemon that is restarted, and the units that systemd restarts with it."""

    daemon: Daemon
    dependents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What changes a host, and how that is undone.

    Attributes:
        changes: The files, in the order in which they change.
        commands: What is run once the files have changed.
        restore: What is run once the files are rolled back.
        answering: The daemons that must answer at their clients' sockets in the end.
        restarts: The daemons that the commands restart.
        gated: The daemons whose clients reach the gateway.
        cleans_run: Whether nothing below /run/libvirt that enabling created is needed in the end.
    """

    changes: tuple[FileChange, ...] = ()
    commands: tuple[Command, ...] = ()
    restore: tuple[Command, ...] = ()
    answering: tuple[Daemon, ...] = ()
    restarts: tuple[Restart, ...] = ()
    gated: tuple[Daemon, ...] = ()
    cleans_run: bool = False

    def describe(self, host: Host) -> Iterator[str]:
        """Yield a line for each step that the plan would take."""
        for change in self.changes:
            if not change.is_done(change.target(host.root)):
                yield change.describe()
        for command in self.commands:
            yield command.describe()
        for daemon in self.answering:
            yield f"check that {daemon.name} answers at {daemon.socket}"


def plan_enable(host: Host, source: Path, share: str | None = None) -> Plan:
    """Plan to put the gateway in front of libvirt's read-write sockets.

    Args:
        host: The host.
        source: The directory of papr-hook's files, which has systemd/ and init.d/.
        share: Where that directory is once the plan has been applied, if that is another place.

    Raises:
        SetupError: The host has sockets that the gateway cannot stand in front of, or nothing that starts it.
    """
    init = host.init()
    if not (source / "systemd").is_dir():
        raise SetupError(f"{source} has no systemd/: install papr-hook with its package or with install.sh")
    if init is Init.NONE:
        raise SetupError(
            "found neither systemd nor /etc/init.d/libvirtd, which would start the gateway: "
            "install with --hook-only, or see papr-hook(8) for 'papr-hook gateway serve --listen'"
        )
    if init is Init.SYSVINIT:
        return _Sysvinit(host, source).plan(enable=True)
    return _Systemd(host, share or str(source)).plan(enable=True)


def plan_disable(host: Host, source: Path) -> Plan:
    """Plan to have clients reach libvirt's own sockets again. Args and Raises: see plan_enable()."""
    init = host.init()
    if init is Init.NONE:
        return Plan(changes=tuple(removals(host, ())))
    if init is Init.SYSVINIT:
        return _Sysvinit(host, source).plan(enable=False)
    return _Systemd(host, str(source)).plan(enable=False)


def read_conf(host: Host, daemon: Daemon) -> bytes:
    """Return a daemon's configuration, b"" if it has none."""
    path = resolve_in(host.root, daemon.conf)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SetupError(f"{daemon.conf}: {error.strerror}") from None


def is_enabled(host: Host) -> bool:
    """Return whether anything of the gateway is enabled."""
    return bool(list(removals(host, ())))


def _edit_conf(host: Host, daemon: Daemon, *, upstream: bool) -> Iterator[FileChange]:
    text = read_conf(host, daemon)
    if upstream:
        yield EditFile(daemon.conf, conf.with_upstream(text))
    elif conf.is_marked(text):
        yield EditFile(daemon.conf, conf.without_upstream(text))


def _check_conf(host: Host, daemon: Daemon) -> None:
    if conf.is_set_otherwise(read_conf(host, daemon)):
        raise SetupError(f"{daemon.conf} already sets unix_sock_dir: remove that, or install with --hook-only")


def _links() -> Iterator[tuple[Daemon, Sockets, str, str]]:
    """Yield what may be linked: the daemon, who makes its sockets, the file below share/systemd, and the link."""
    for daemon in DAEMONS:
        for sockets in Sockets:
            owner = f"{daemon.name}.socket" if sockets is Sockets.SYSTEMD else ""
            for unit in (owner, f"{daemon.name}.service", f"papr-hook-{daemon.name}.socket"):
                if unit:
                    yield daemon, sockets, f"{sockets.value}/{unit}.d/{DROP_IN}", f"{UNITS}/{unit}.d/{DROP_IN}"


def removals(host: Host, kept: Iterable[str]) -> Iterator[FileChange]:
    """Yield what removes everything that enabling may have created, but for the paths that are kept."""
    paths = {link: None for _, _, _, link in _links()}
    paths.update({f"/etc/init.d/{script}": None for script in SCRIPTS})
    for path in paths:
        if path not in kept and exists(resolve_in(host.root, path, follow=False)):
            yield RemovePath(path)
    for daemon in DAEMONS:
        if daemon.conf not in kept:
            yield from _edit_conf(host, daemon, upstream=False)


@dataclass(frozen=True)
class _State:
    """A daemon as systemd has it.

    Attributes:
        daemon: The daemon.
        sockets: Who makes its sockets.
        units: Its active units, the unit of the read-write socket or the service among them, or none.
        dependents: The active units that stop with it.
        moved: Whether its own socket is behind the gateway now.
    """

    daemon: Daemon
    sockets: Sockets
    units: tuple[str, ...] = ()
    dependents: tuple[str, ...] = ()
    moved: bool = False


@dataclass
class _Systemd:
    """Plans for a host with systemd."""

    host: Host
    share: str
    states: list[_State] = field(init=False)

    def __post_init__(self) -> None:
        runs = self.host.init() is Init.SYSTEMD
        self.states = [self._state(daemon) if runs else _State(daemon, Sockets.SYSTEMD) for daemon in DAEMONS]

    def plan(self, *, enable: bool) -> Plan:
        changes = tuple(self._changes() if enable else removals(self.host, ()))
        active = [state for state in self.states if state.units]
        restarts = [state for state in active if state.moved != enable]
        if self.host.init() is Init.OFFLINE:
            return Plan(changes)
        if not enable and not changes and not restarts:
            return Plan()
        return Plan(
            changes=changes,
            commands=tuple(self._commands(enable, restarts)),
            restore=tuple(self._commands(not enable if restarts else enable, restarts)),
            answering=tuple(state.daemon for state in active),
            restarts=tuple(Restart(state.daemon, state.dependents) for state in restarts),
            gated=tuple(state.daemon for state in active if enable),
            cleans_run=not enable,
        )

    def _state(self, daemon: Daemon) -> _State:
        socket, service = f"{daemon.name}.socket", f"{daemon.name}.service"
        sockets = Sockets.SYSTEMD
        if self.host.unit_property(socket, "ActiveState") != "active" and (
            self.host.unit_property(service, "ActiveState") == "active" or conf.is_marked(read_conf(self.host, daemon))
        ):
            sockets = Sockets.DAEMON
        units = self.host.active_units(service, socket, f"{daemon.name}-*.socket")
        if not {socket, service} & set(units):
            return _State(daemon, sockets)
        dependents = self.host.dependents(units)
        return _State(daemon, sockets, tuple(units), tuple(dependents), self.host.listens(daemon.upstream))

    def _changes(self) -> Iterator[FileChange]:
        kept = []
        for state in self.states:
            self._check(state)
            for daemon, sockets, source, link in _links():
                if (daemon, sockets) == (state.daemon, state.sockets):
                    kept.append(link)
                    yield MakeLink(link, f"{self.share}/systemd/{source}")
            if state.sockets is Sockets.DAEMON:
                kept.append(state.daemon.conf)
                yield from _edit_conf(self.host, state.daemon, upstream=True)
        yield from removals(self.host, kept)

    def _check(self, state: _State) -> None:
        """Refuse a socket that is not where libvirt's clients expect it."""
        daemon = state.daemon
        if state.sockets is Sockets.DAEMON:
            _check_conf(self.host, daemon)
            return
        unit = f"{daemon.name}.socket"
        if self.host.init() is not Init.SYSTEMD or self.host.unit_property(unit, "LoadState") != "loaded":
            return
        listen = " ".join(self.host.unit_property(unit, "Listen").split())
        if listen not in (f"{daemon.socket} (Stream)", f"{daemon.upstream} (Stream)"):
            raise SetupError(
                f"{unit} listens at {listen or 'nothing'} instead of {daemon.socket}: "
                "change that, or install with --hook-only"
            )

    def _commands(self, enable: bool, restarts: list[_State]) -> Iterator[Command]:
        """Yield what brings the running services in line with the files."""
        yield Command(("systemctl", "daemon-reload"))
        yield Command(("systemctl", "reset-failed", "papr-hook-*"), may_fail=True)
        if not enable:
            yield Command(("systemctl", "stop", "papr-hook-gateway@*", "papr-hook-bypass@*"), may_fail=True)
        for state in self.states:
            name = state.daemon.name
            if not enable:
                yield Command(("systemctl", "stop", f"papr-hook-{name}.socket"), may_fail=True)
            if state in restarts:
                # A socket does not start while its service runs, so all of them stop first. Frequent runs must not
                # meet the limit on starts.
                units = (*state.units, *state.dependents)
                yield Command(("systemctl", "stop", *units))
                yield Command(("systemctl", "reset-failed", *units), may_fail=True)
                yield Command(
                    ("systemctl", "start", *units), failure=f"{name} does not start: see 'journalctl -u {name}'"
                )
            elif enable and state.units:
                socket = f"papr-hook-{name}.socket"
                yield Command(("systemctl", "restart", socket), if_changed=socket)
                yield Command(("systemctl", "restart", f"papr-hook-gateway@{name}.service"))


@dataclass
class _Sysvinit:
    """Plans for a host whose scripts in /etc/init.d start libvirtd, which makes its own sockets."""

    host: Host
    source: Path

    def plan(self, *, enable: bool) -> Plan:
        runs = self.host.process_of(LIBVIRTD.name) is not None
        moved = self.host.listens(LIBVIRTD.upstream)
        if enable:
            _check_conf(self.host, LIBVIRTD)
            changes = tuple(self._changes())
        else:
            changes = tuple(removals(self.host, ()))
        if not enable and not changes and not moved:
            return Plan()
        restart = runs and moved != enable
        return Plan(
            changes=changes,
            commands=tuple(self._commands(enable, runs, moved)),
            restore=tuple(self._commands(not enable if restart else enable, runs, moved=False)),
            answering=(LIBVIRTD,) if runs else (),
            restarts=(Restart(LIBVIRTD),) if restart else (),
            gated=(LIBVIRTD,) if runs and enable else (),
            cleans_run=not enable,
        )

    def _changes(self) -> Iterator[FileChange]:
        for script in SCRIPTS:
            yield WriteFile(f"/etc/init.d/{script}", (self.source / "init.d" / script).read_bytes(), 0o755)
        yield from _edit_conf(self.host, LIBVIRTD, upstream=True)
        kept = [*(f"/etc/init.d/{script}" for script in SCRIPTS), LIBVIRTD.conf]
        yield from removals(self.host, kept)

    def _commands(self, enable: bool, runs: bool, moved: bool) -> Iterator[Command]:
        for script in SCRIPTS:
            yield Command(("update-rc.d", script, "defaults" if enable else "remove"), may_fail=True)
        if enable and moved:
            yield Command(("/etc/init.d/papr-hook-gateway", "restart"))
            return
        # The script in /etc/init.d may be gone by now.
        yield Command((str(self.source / "init.d" / "papr-hook-gateway"), "stop"))
        if runs:
            yield Command(("/etc/init.d/libvirtd", "stop"))
        if enable:
            yield Command(("/etc/init.d/papr-hook-upstream", "start"))
        if runs:
            yield Command(("/etc/init.d/libvirtd", "start"), failure="libvirtd does not start: see its log")
        if enable:
            yield Command(("/etc/init.d/papr-hook-gateway", "start"))
