"""The sockets: where clients come in, who they are, and the way to libvirt and back.

Each client is served by a process of its own, which takes on the client's identity before it connects to libvirt: so
libvirt's socket permissions and polkit decide as they would without a gateway, and a fault in here has no more rights
than the client has. The kernel lets no other process of that user look into it, because it changed its identity.
"""

from __future__ import annotations

import array
import errno
import gc
import os
import select
import signal
import socket
import stat
import struct
import syslog
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ..config import Config
from ..journal import log
from ..virt.locks import open_attach_locks
from . import protocol
from .protocol import PacketWithFds
from .session import Session

SO_PEERGROUPS = 59  # Linux include/uapi/asm-generic/socket.h; Python has no name for it
MAX_PEERGROUPS = 256
"""Python's getsockopt returns 1024 bytes at most."""
LISTEN_FDS_START = 3
LISTEN_BACKLOG = 1024
ACCEPT_RETRY = 0.2
"""Seconds before the next try when the host has no memory or descriptors to accept a client with."""
CHUNK = 65536
HIGH_WATER_MARK = 4 * CHUNK
"""Bytes that wait to be sent to one side, beyond which nothing is read from the other."""
REWRITING_SECONDS = 5.0
"""The longest that a definition may take; libvirt's keepalive gives up after 30 s (keepalive_interval and
keepalive_count in its libvirtd.conf). One of 31 devices takes some milliseconds."""
PREAUTH_MAX_PACKET = 131_072
"""The longest packet, in bytes, of a client whom libvirt has not let in yet: what SASL has to say is the longest then,
65536 bytes (REMOTE_AUTH_SASL_DATA_MAX in its src/remote/remote_protocol.x)."""
RETRY_MS = 20
"""How often an attach looks whether the one before it is over."""


class UnservableError(Exception):
    """A client whose identity cannot be taken on, or for whom there is no libvirt."""


def say(priority: int, text: str) -> None:
    """Write a line to the journal. See journal.log()."""
    log(priority, text)


def listening(environment: dict[str, str]) -> list[socket.socket]:
    """The sockets that systemd passed on (sd_listen_fds(3)); none where it passed none to this process."""
    count = int(environment.get("LISTEN_FDS", "0")) if environment.get("LISTEN_PID") == str(os.getpid()) else 0
    found = [socket.socket(fileno=LISTEN_FDS_START + n) for n in range(count)]
    for one in found:
        one.set_inheritable(False)
    return found


def listen(path: Path, like: Path) -> socket.socket:
    """A socket at a path, in place of what is there, with another one's mode, owner and group. Raises OSError."""
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


def serve(ways: Mapping[socket.socket, Path], run: Path, load_config: Callable[[], Config]) -> NoReturn:
    """Serve every client that comes, until a signal ends the process; those that are there go on then.

    ways: where clients come, each with libvirt's own socket; run: libvirt's run directory; settings: reads the host's
    policy.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so the kernel reaps the children
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_DFL)  # whoever started it may have ignored them
    gc.freeze()
    poller = select.poll()
    by_number = {one.fileno(): one for one in ways}
    for one in ways:
        one.setblocking(False)
        poller.register(one, select.POLLIN)
    while True:
        for number, _ in poller.poll():
            try:
                listener = by_number[number]
                client, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:  # the host is out of something; the client waits
                say(syslog.LOG_ERR, f"cannot accept a client: {error.strerror}")
                time.sleep(ACCEPT_RETRY)
                continue
            with client:
                _fork(client, listener, ways, run, load_config)


def _fork(
    client: socket.socket,
    listener: socket.socket,
    ways: Mapping[socket.socket, Path],
    run: Path,
    load_config: Callable[[], Config],
) -> None:
    """Serve a client in a child."""
    try:
        child = os.fork()
    except OSError as error:
        say(syslog.LOG_ERR, f"cannot serve a client: {error.strerror}")
        return
    if child:
        return
    status = 1
    try:
        for one in ways:
            one.close()
        _serve_client(client, ways[listener], run, load_config)
        status = 0
    except UnservableError as error:
        say(syslog.LOG_ERR, f"refused {_describe(client)}: {error}")
    except protocol.ProtocolError as error:
        say(syslog.LOG_WARNING, f"ended the connection of {_describe(client)}: {error}")
    except ConnectionError:
        pass  # a side went away in the middle of something, which ends the connection without a gateway, too
    except BaseException as error:
        say(syslog.LOG_ERR, f"unexpected {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _serve_client(client: socket.socket, upstream: Path, run: Path, load_config: Callable[[], Config]) -> None:
    signal.signal(signal.SIGALRM, _too_long)
    locks = open_attach_locks(run)
    assume_identity(client)
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        daemon.connect(str(upstream))
    except OSError as error:
        raise UnservableError(f"libvirt does not answer at {upstream}: {error.strerror}") from None
    _Relay(client, daemon, Session(load_config, say, locks, limit=_limit)).run()


@contextmanager
def _limit() -> Iterator[None]:
    """Raise TimeoutError inside after some time: nothing else of the connection goes on meanwhile."""
    signal.setitimer(signal.ITIMER_REAL, REWRITING_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_long(number: int, packet: object) -> NoReturn:
    raise TimeoutError(f"it takes more than {REWRITING_SECONDS:g} s to lay out")


def assume_identity(client: socket.socket) -> None:
    """Become who connected to a socket: its uid, gid and groups, for good.

    Raises UnservableError where that cannot be known or done.
    """
    _, uid, gid = _credentials(client)
    groups = array.array("I")
    try:
        groups.frombytes(client.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_PEERGROUPS * groups.itemsize))
        if os.geteuid() == 0:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
    except OSError as error:
        why = f"it is in more than {MAX_PEERGROUPS} groups" if error.errno == errno.ERANGE else error.strerror
        raise UnservableError(f"its identity, gid {gid} and its groups, cannot be taken on: {why}") from None
    if (os.getresuid(), os.getresgid()) != ((uid, uid, uid), (gid, gid, gid)):
        raise UnservableError("the gateway runs as another user, and not as root")


def _credentials(client: socket.socket) -> tuple[int, int, int]:
    """Who connected to a socket: process, uid and gid (unix(7))."""
    size = struct.calcsize("3i")
    process, uid, gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return process, uid, gid


def _describe(client: socket.socket) -> str:
    process, uid, _ = _credentials(client)
    return f"process {process} of uid {uid}"


class _Side:
    """One socket of a relay. framer: of what comes from it; outgoing: what waits to be sent to it."""

    def __init__(self, sock: socket.socket, limit: int = protocol.MAX_PACKET) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.framer = protocol.PacketParser(limit)
        self.received: deque[int] = deque()
        self.outgoing: deque[tuple[memoryview, int | None]] = deque()
        self.waiting = 0
        self.ended = False

    def receive(self) -> None:
        """Read a portion. Raises OSError, or ProtocolError for descriptors out of place."""
        try:
            data, messages, flags, _ = self.sock.recvmsg(CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        for level, kind, content in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self.received.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise protocol.RemoteProtocolError("more descriptors at once than the protocol knows")
        self.ended = not data
        self.framer.receive(data)

    def packets(self) -> list[PacketWithFds]:
        """The packets that are complete, each with its descriptors. Raises ProtocolError."""
        found = []
        while (packet := self.framer.next_packet()) is not None:
            if len(self.received) < packet.fds:
                raise protocol.RemoteProtocolError("a descriptor was announced and did not come")
            found.append(PacketWithFds(packet, tuple(self.received.popleft() for _ in range(packet.fds))))
        if len(self.received) != self.framer.fds_read:
            raise protocol.RemoteProtocolError("a descriptor came that was not announced")
        return found

    def put(self, item: PacketWithFds) -> None:
        """Queue a packet, and each of its descriptors with the byte that carries it."""
        self.outgoing.append((memoryview(item.packet.data), None))
        self.outgoing.extend((memoryview(b"\0"), number) for number in item.fds[: item.packet.fds])
        self.waiting += len(item.packet.data)
        for unsent in item.fds[item.packet.fds :]:
            os.close(unsent)

    def send(self) -> None:
        """Send as much as there is room for. Raises OSError."""
        while self.outgoing:
            data, number = self.outgoing[0]
            rights = [] if number is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [number]))]
            try:
                sent = self.sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            if number is not None:
                os.close(number)
            else:
                self.waiting -= sent
            if sent == len(data):
                self.outgoing.popleft()
            else:
                self.outgoing[0] = (data[sent:], None)


_ANCILLARY = socket.CMSG_SPACE(protocol.MAX_FDS * struct.calcsize("i"))


class _Relay:
    """Passes packets between a client and libvirt until one of them has gone."""

    def __init__(self, client: socket.socket, daemon: socket.socket, session: Session) -> None:
        self._client = _Side(client, PREAUTH_MAX_PACKET)
        self._daemon = _Side(daemon)
        self._session = session
        self._poller = select.poll()
        self._interest: dict[_Side, int] = {}

    def run(self) -> None:
        """Raises OSError when a side breaks off, ProtocolError when one sends what is no packet."""
        by_number = {side.sock.fileno(): side for side in (self._client, self._daemon)}
        while not self._over():
            self._register(self._client, self._daemon, not self._session.full)
            self._register(self._daemon, self._client, True)
            for number, events in self._poller.poll(RETRY_MS if self._session.waits else None):
                side = by_number[number]
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not side.ended:
                    side.receive()
            self._pass_on()

    def _over(self) -> bool:
        """Whether a side has ended and the other one has got all that it said."""
        return (self._client.ended and not self._daemon.outgoing) or (self._daemon.ended and not self._client.outgoing)

    def _register(self, side: _Side, other: _Side, more: bool) -> None:
        """Wait for what a side may do now. One that may do nothing is not watched, or its end would wake us always."""
        wanted = select.POLLIN if more and not side.ended and other.waiting < HIGH_WATER_MARK else 0
        wanted |= select.POLLOUT if side.outgoing else 0
        if wanted == self._interest.get(side, 0):
            return
        if wanted:
            self._poller.register(side.sock, wanted)
        else:
            self._poller.unregister(side.sock)
        self._interest[side] = wanted

    def _pass_on(self) -> None:
        for item in self._client.packets():
            self._session.from_client(item)
        for item in self._daemon.packets():
            self._session.from_daemon(item)
        if self._session.opened:
            self._client.framer.limit = protocol.MAX_PACKET
        self._session.retry()
        for queue, side in ((self._session.to_daemon, self._daemon), (self._session.to_client, self._client)):
            while queue:
                side.put(queue.popleft())
            side.send()
