"""The processes that are connected to a Unix socket, as the kernel's socket diagnostics have them (sock_diag(7))."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .facts import Process

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_DUMP_REQUEST: Final = 0x301
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_ESTABLISHED: Final = 1 << 1
_SHOW_NAME_AND_PEER: Final = 1 | 4
_ATTRIBUTE_NAME: Final = 0
_ATTRIBUTE_PEER: Final = 2

_MESSAGE: Final = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_REQUEST: Final = struct.Struct("=BBHIIIII")
"""unix_diag_req: family, protocol, padding, states, inode, what to show, and a cookie of two words."""
_SOCKET: Final = struct.Struct("=BBBBIII")
"""unix_diag_msg: family, type, state, padding, inode, and a cookie of two words."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""nlattr: length and type."""


def find_clients(path: str, proc: Path = Path("/proc")) -> Iterator[Process]:
    """Yield the processes that are connected to a socket, outside of containers.

    Args:
        path: The path that the socket was bound to.
        proc: Where proc(5) is.
    """
    inodes = set()
    with contextlib.suppress(OSError):
        inodes = {peer for name, peer in _dump_sockets() if name == os.fsencode(path)}
    if inodes:
        yield from _find_owners({f"socket:[{inode}]" for inode in inodes}, proc)


def is_gateway(process: Process, proc: Path = Path("/proc")) -> bool:
    """Return whether a process belongs to the gateway, by its command line."""
    try:
        words = (proc / str(process.pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"gateway" in words and b"serve" in words


def _dump_sockets() -> Iterator[tuple[bytes, int]]:
    """Yield the name of each connected Unix socket that has one, and the inode of the socket at its other end.

    A server's end of a connection has the name of the socket that accepted it. Raises OSError.
    """
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ESTABLISHED, 0, _SHOW_NAME_AND_PEER, 0xFFFFFFFF, 0xFFFFFFFF)
    head = _MESSAGE.pack(_MESSAGE.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_DUMP_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(5)
        kernel.sendall(head + request)
        while True:
            data = kernel.recv(1 << 16)
            while len(data) >= _MESSAGE.size:
                length, kind = _MESSAGE.unpack_from(data)[:2]
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    return
                attributes = dict(_read_attributes(data[_MESSAGE.size + _SOCKET.size : length]))
                peer = attributes.get(_ATTRIBUTE_PEER, b"")
                if len(peer) == 4:
                    yield attributes.get(_ATTRIBUTE_NAME, b"").rstrip(b"\0"), int(struct.unpack("=I", peer)[0])
                data = data[_align(length) :]


def _read_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[_align(length) :]


def _align(length: int) -> int:
    return (length + 3) & ~3


def _find_owners(links: set[str], proc: Path) -> Iterator[Process]:
    """Yield the processes of this PID namespace that have one of some descriptors open."""
    own = os.readlink(proc / "self/ns/pid")
    for directory in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):
            if os.readlink(directory / "ns/pid") != own:
                continue
            if any(_link_of(entry) in links for entry in (directory / "fd").iterdir()):
                yield Process(int(directory.name), (directory / "comm").read_text(errors="replace").strip())


def _link_of(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""
