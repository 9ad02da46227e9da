"""What papr-hook gateway does."""

from __future__ import annotations

import os
import syslog
from pathlib import Path
from typing import NoReturn

from ..config import Config, load_config
from ..errors import ConfError
from . import server


def gateway(listen: Path | None, upstream: Path | None, conf: Path | None) -> NoReturn:
    """Serve libvirt's clients until a signal ends the process.

    listen: where they come, beside the sockets that systemd passes; upstream: libvirt's own socket, None for the one
    that upstream_of() tells; conf: the configuration, which is read again for each call that is rewritten: clients
    are served even where it cannot be used. Raises ConfError where there is no socket to serve.
    """
    try:
        passed = server.listening(dict(os.environ))
        ways = {one: upstream or upstream_of(Path(one.getsockname())) for one in passed}
        if listen is not None:
            own = upstream or upstream_of(listen)
            ways[server.listen(listen, like=own)] = own
    except OSError as error:
        raise ConfError(f"{error.filename or listen}: {error.strerror}") from None
    if not ways:
        raise ConfError("systemd passed no sockets, and --listen names none")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    server.serve(ways, _run_directory(conf), lambda: load_config(conf))


def upstream_of(path: Path) -> Path:
    """Where libvirt's own socket is when the gateway has its place: below that, in upstream/, under the same name."""
    return path.parent / "upstream" / path.name


def _run_directory(conf: Path | None) -> Path:
    try:
        return load_config(conf).libvirt_run_dir
    except ConfError as error:
        server.say(syslog.LOG_ERR, f"{error}; until that is mended, everything goes to libvirt as it is")
        return Config().libvirt_run_dir
