"""Read where libvirt's clients arrive on this host."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from typing import Final

from ..gateway.setup.host import DAEMONS, LIBVIRTD, Daemon, Host, Init
from ..gateway.setup.plan import is_enabled
from .facts import DaemonFacts, GatewayFacts, Owner, SocketFacts
from .unix_peers import find_clients, is_gateway

ANSWER_SECONDS: Final = 10.0
"""How long libvirt may take to answer; it serves no client while it starts guests at boot."""

_NETWORK_UNITS: Final = ("libvirtd-tls.socket", "libvirtd-tcp.socket")
"""virtproxyd has the ports of a modular host, and connects to the gateway."""
_LISTENING: Final = "0A"
"""TCP_LISTEN in the fourth column of /proc/net/tcp (proc(5))."""


def read_gateway(host: Host) -> GatewayFacts:
    """Return the facts about the gateway. Raises SetupError if a configuration of libvirt cannot be read."""
    daemons = [daemon for daemon in DAEMONS if daemon is not LIBVIRTD or not _has_virtproxyd(host)]
    return GatewayFacts(is_enabled(host), tuple(_read_daemon(host, daemon) for daemon in daemons))


def _has_virtproxyd(host: Host) -> bool:
    """Return whether libvirtd's socket is virtproxyd's, a client of virtqemud itself (libvirt docs/daemons.rst)."""
    units = host.active_units("virtproxyd.socket", "virtproxyd.service") if host.init() is Init.SYSTEMD else []
    return bool(units) or host.process_of("virtproxyd") is not None


def _read_daemon(host: Host, daemon: Daemon) -> DaemonFacts:
    clients, upstream = _read_socket(host, daemon.socket), _read_socket(host, daemon.upstream)
    found = find_clients(str(host.path(daemon.upstream))) if upstream.listens else ()
    return DaemonFacts(
        daemon.name,
        clients,
        upstream,
        clients.listens and host.answers(daemon.socket, ANSWER_SECONDS),
        tuple(process for process in found if not is_gateway(process)),
        tuple(_find_ports(host)) if daemon is LIBVIRTD else (),
    )


def _read_socket(host: Host, path: str) -> SocketFacts:
    file = host.path(path)
    owner = None
    with contextlib.suppress(OSError):
        status = file.stat()
        owner = Owner(stat.S_IMODE(status.st_mode), _user(status.st_uid), _group(status.st_gid))
    return SocketFacts(path, host.listens(path), owner, file.is_symlink())


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _find_ports(host: Host) -> Iterator[str]:
    """Yield the sockets for TLS and TCP of libvirtd: the units that systemd listens for, or else its own ports."""
    units = host.active_units(*_NETWORK_UNITS) if host.init() is Init.SYSTEMD else []
    yield from units
    pid = host.process_of(LIBVIRTD.name)
    if units or pid is None:
        return
    process = host.path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        own = {os.readlink(entry) for entry in (process / "fd").iterdir()}
        for name in ("tcp", "tcp6"):
            for line in (process / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and f"socket:[{fields[9]}]" in own:
                    yield f"{name.upper()} port {int(fields[1].rpartition(':')[2], 16)} of libvirtd"
