"""What is asked of a host before the gateway is set up."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from papr_hook.gateway.setup.host import Host


def test_a_stale_socket_listens_no_more() -> None:
    """A socket whose process has ended is still a file, and nobody listens there."""
    # A path of a socket has at most 107 bytes (unix(7)), which pytest's directories may exceed.
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as server:
        host = Host(Path(name))
        assert not host.listens("/sock")
        server.bind(f"{name}/sock")
        server.listen()
        assert host.listens("/sock")
        server.close()
        assert host.path("/sock").is_socket()
        assert not host.listens("/sock")
