"""The sockets on which clients arrive: inherited from systemd, or the gateway's own."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path

LISTEN_FDS_START = 3
"""SD_LISTEN_FDS_START in sd_listen_fds(3)."""

LISTEN_BACKLOG = 1024
"""Clients that wait to be accepted. The kernel caps it at net.core.somaxconn."""


def inherited_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the sockets that systemd passed to this process (sd_listen_fds(3)).

    The variables are removed, so that no child takes them for its own.
    """
    mine = environment.get("LISTEN_PID") == str(os.getpid())
    count = int(environment.get("LISTEN_FDS", "0")) if mine else 0
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    found = [socket.socket(fileno=LISTEN_FDS_START + n) for n in range(count)]
    for one in found:
        one.set_inheritable(False)
    return found


def bind_socket(path: Path, like: Path) -> socket.socket:
    """Return a listening socket at a path, replacing what is there.

    The socket appears under its name only when it has its rights: a client that could connect before would get in
    where libvirt's socket would have refused it.

    Args:
        path: Where clients connect.
        like: The socket whose mode, owner and group it gets.

    Raises:
        OSError: There is no such socket, or the path cannot be written.
    """
    model = os.stat(like)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.bind(str(temporary))
    try:
        os.chown(temporary, model.st_uid, model.st_gid)
        os.chmod(temporary, stat.S_IMODE(model.st_mode))
        one.listen(LISTEN_BACKLOG)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return one


def upstream_path(path: Path) -> Path:
    """Return where libvirt's own socket is while the gateway listens at its usual path."""
    return path.parent / "upstream" / path.name
