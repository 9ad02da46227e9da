"""The identity of a client, and how a process assumes it.

libvirtd asks the kernel for the credentials of the process that called connect(2). So a process that has assumed the
client's uid, gid and groups before it connects has exactly the client's rights, in libvirt's socket permissions and in
polkit's rules.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from dataclasses import dataclass

SO_PEERGROUPS = 59
"""Linux include/uapi/asm-generic/socket.h; Python has no name for it."""

MAX_PEERGROUPS = 256
"""Python's getsockopt returns 1024 bytes at most."""


class UnservableError(Exception):
    """A client whose identity cannot be read or assumed."""


@dataclass(frozen=True)
class Identity:
    """What libvirt and polkit decide by: a uid, a gid and the supplementary groups in the kernel's order."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def read_identity(sock: socket.socket) -> Identity:
    """Return the identity that the peer of a socket had when it connected (unix(7)).

    Raises:
        UnservableError: The kernel does not tell, or the peer is in too many groups.
    """
    groups = array.array("I")
    try:
        _, uid, gid = _credentials(sock)
        groups.frombytes(sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_PEERGROUPS * groups.itemsize))
    except OSError as error:
        too_many = f"it is in more than {MAX_PEERGROUPS} groups"
        raise UnservableError(too_many if error.errno == errno.ERANGE else f"cannot read its groups: {error}") from None
    return Identity(uid, gid, tuple(groups))


def assume_identity(identity: Identity) -> None:
    """Assume an identity irrevocably.

    The groups come first: a process that has given up root may not change them. Each of the three uids and gids is
    set, because a saved one would let the process return to root. The kernel then also denies other processes of the
    user to trace this one, because its uid has changed (PR_SET_DUMPABLE in prctl(2)).

    Raises:
        UnservableError: The kernel refuses, or this process is neither root nor the same user.
    """
    uid, gid = identity.uid, identity.gid
    if os.geteuid() == 0:
        try:
            os.setgroups(list(identity.groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            raise UnservableError(f"cannot assume uid {uid} and gid {gid}: {error.strerror}") from None
    if (os.getresuid(), os.getresgid()) != ((uid, uid, uid), (gid, gid, gid)):
        raise UnservableError("the gateway runs as another user, and not as root")


def describe_peer(sock: socket.socket) -> str:
    """Return what a message calls the client at the other end of a socket."""
    try:
        process, uid, _ = _credentials(sock)
    except OSError:
        return "an unknown client"
    return f"client process {process} of uid {uid}"


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return the peer's process id, uid and gid (SO_PEERCRED in unix(7))."""
    size = struct.calcsize("3i")
    process, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return process, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF
