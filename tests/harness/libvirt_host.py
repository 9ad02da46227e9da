"""A libvirt host for the tests: a real libvirtd that shares no state with the machine it runs on.

A host is a process tree in namespaces of its own: mount, PID, network, UTS and IPC. It sees the machine's
programs, but a private copy of /etc, and private /run and libvirt directories. Whatever the process tree does,
closing the pipe that holds its first process makes the kernel end every process and every mount of it. That also
happens when the test process is killed.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

__all__ = ["CommandError", "Host", "HostError"]

SOCKET: Final = "/run/libvirt/libvirt-sock"
DAEMON_CONF: Final = "/etc/libvirt/libvirtd.conf"
DAEMON_LOG: Final = "/var/log/libvirt/libvirtd.log"
DAEMON_PID: Final = "/run/libvirt/libvirtd.pid"

# Inside, on the left; below the host's own directory, on the right. /run is private as a whole: a gateway or a
# hook may put sockets and locks there.
PRIVATE: Final = {
    "/etc": "etc",
    "/run": "run",
    "/var/lib/libvirt": "lib",
    "/var/log/libvirt": "log",
    "/var/cache/libvirt": "cache",
}

# The longest path that fits into a sockaddr_un.
SOCKET_PATH_MAX: Final = 107

START_TIMEOUT: Final = 60.0  # seconds; the first start probes every emulator
STOP_TIMEOUT: Final = 30.0  # seconds
POLL: Final = 0.02  # seconds

# What libvirtd logs on a SIGHUP, and the hook that it looks for last.
RELOADED: Final = "Reloading configuration on SIGHUP"
LAST_HOOK: Final = "/etc/libvirt/hooks/bhyve"

# Commands inside get this and nothing else, as libvirtd under a service manager does.
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/root",
}

# The first process of the namespaces. It tells its process id as the machine counts it (the /proc that it reads is
# still the machine's), makes the private directories, and then waits for the end of its input. The shell reaps what
# daemons leave to it: libvirt takes a zombie emulator for one that still runs. /sys is mounted anew for the network
# devices of the own network, and without the cgroups: two hosts with guests of the same name would share one group.
INIT: Final = r"""
set -e
read -r pid rest </proc/self/stat
mount -t proc proc /proc
umount -R -l /sys
mount -t sysfs sysfs /sys
ip link set lo up
hostname "$1"
shift
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
echo "$pid"
cat >/dev/null
exit 0
"""

WRITE: Final = r"""
set -e
mkdir -p "$(dirname "$1")"
rm -f "$1.new"
cat >"$1.new"
chmod "$2" "$1.new"
mv -f "$1.new" "$1"
"""

DAEMON_SETTINGS: Final = """\
host_uuid = "{uuid}"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0777"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_level = 3
log_filters = "1:util.hook 2:daemon.libvirtd"
log_outputs = "1:file:{log}"
"""

# Everything runs as root and nothing changes owner, since two hosts use the same images at the same time.
QEMU_SETTINGS: Final = """\
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
"""


class HostError(Exception):
    """The host could not be started, or its daemon did not do what it was told."""


class CommandError(subprocess.CalledProcessError):
    """A command inside a host failed. Unlike its base, it says what the command said."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stdout}{self.stderr}"


def _text(path: Path) -> str:
    """Return a file's text; empty when there is no file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _communicate(process: subprocess.Popen[str], text: str | None, timeout: float) -> tuple[str, str]:
    """Feed a process that leads a session and collect its outputs; kill the whole session when time is up.

    nsenter's child is not ours to kill by the process alone: left alive it would hold the pipes open.
    """
    try:
        return process.communicate(text or "", timeout=timeout)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise


class Host:
    """One libvirt host; a context manager that starts it and removes every trace of it.

    Args:
        root: a directory that may be shared by several hosts; it is made where missing. Paths below it must be
            short enough for Unix sockets, and none of /etc, /run and libvirt's directories in /var.
        name: the host name, and the name of the host's directory below root. Letters, digits and hyphens.
        seed: a directory with libvirt's cache of emulator capabilities, as save_cache() writes it. It is copied,
            never changed, and saves the probing of the emulators.

    Raises:
        ValueError: name is no host name, or root is too long for a socket below it.
    """

    def __init__(self, root: Path, name: str, seed: Path | None = None) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
            raise ValueError(f"not a host name: {name!r}")
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.directory = root.resolve() / name
        self._seed = seed
        self._init: subprocess.Popen[str] | None = None
        self._pid = 0
        if len(os.fsencode(self.outside(SOCKET))) > SOCKET_PATH_MAX:
            raise ValueError(f"too long for a socket below it: {root}")

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def uri(self) -> str:
        """The libvirt URI of the usual socket, /run/libvirt/libvirt-sock; good inside the host and outside."""
        return f"qemu:///system?socket={self.outside(SOCKET)}"

    @property
    def daemon_uri(self) -> str:
        """The libvirt URI of the socket that libvirtd itself serves, as unix_sock_dir in its settings says.

        It differs from uri where a gateway holds the usual socket.
        """
        return f"qemu:///system?socket={self.outside(self._daemon_socket())}"

    @property
    def pid(self) -> int:
        """The host's first process, as the machine counts; its namespaces are the host's. 0 while stopped."""
        return self._pid

    @property
    def running(self) -> bool:
        """Whether the namespaces exist."""
        return self._init is not None

    def start(self) -> None:
        """Make the namespaces and the private directories, and start libvirtd.

        Raises:
            HostError: a step failed, with what the step said; nothing is left running.
        """
        if self.running:
            raise HostError(f"{self.name}: runs already")
        try:
            self._make_directories()
            self._enter_namespaces()
            self.start_daemon()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the host, guests included, with its mounts, and delete its directory.

        Doing it twice, or before a start, is harmless.

        Raises:
            HostError: the process tree did not end in 30 s.
        """
        self._leave_namespaces()
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def start_daemon(self) -> None:
        """Start libvirtd and wait until it answers; up to 60 s.

        Raises:
            HostError: it did not start or does not answer, with the end of its log.
        """
        done = self.run(["libvirtd", "-d", "-p", DAEMON_PID], check=False, timeout=START_TIMEOUT)
        if done.returncode != 0:
            raise HostError(f"{self.name}: libvirtd: {done.stderr}{self._log_tail()}")
        self._wait("libvirtd does not answer", START_TIMEOUT, self._daemon_answers)

    def stop_daemon(self) -> None:
        """Stop libvirtd and wait until it is gone; up to 30 s. Guests run on.

        Raises:
            HostError: it does not run, or does not end.
        """
        pid = self.daemon_pid()
        self.run(["kill", str(pid)])
        self._wait("libvirtd does not end", STOP_TIMEOUT, lambda: not self._lives(pid))

    def restart(self) -> None:
        """Stop libvirtd and start it again, so that it reads its settings and reconnects to its guests.

        Raises:
            HostError: as of stop_daemon() and start_daemon().
        """
        self.stop_daemon()
        self.start_daemon()

    def reload(self) -> None:
        """Send libvirtd a SIGHUP, on which it looks for hooks anew, and wait until it did.

        It then reads definitions anew too, for which this does not wait.

        Raises:
            HostError: libvirtd did not report it in 30 s.
        """
        reloads = self.log().count(RELOADED)

        def reloaded() -> bool:
            parts = self.log().split(RELOADED)
            return len(parts) > reloads + 1 and LAST_HOOK in parts[-1]

        self.run(["kill", "-HUP", str(self.daemon_pid())])
        self._wait("libvirtd does not reload", STOP_TIMEOUT, reloaded)

    def daemon_pid(self) -> int:
        """Return libvirtd's process id as counted inside the host.

        Raises:
            HostError: libvirtd does not run.
        """
        done = self.run(["cat", DAEMON_PID], check=False)
        if done.returncode != 0 or not done.stdout.strip():
            raise HostError(f"{self.name}: libvirtd does not run")
        return int(done.stdout)

    def run(
        self,
        argv: list[str],
        *,
        input: str | None = None,
        check: bool = True,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host, as root, in /, with the bare environment of a service.

        Args:
            argv: the command and its arguments; the command is looked for in the usual PATH.
            input: the text on its standard input, which is empty where this is None.
            check: raise when the command ends with another status than 0.
            timeout: seconds after which the command and its children are killed.

        Returns:
            The status and both outputs, as text.

        Raises:
            HostError: the host does not run.
            subprocess.CalledProcessError: the command failed; the message of a failed command is in its stderr.
            subprocess.TimeoutExpired: it was killed.
        """
        if not self.running:
            raise HostError(f"{self.name}: does not run")
        process = subprocess.Popen(
            self.argv(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=ENVIRONMENT,
            start_new_session=True,
        )
        out, err = _communicate(process, input, timeout)
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        if check and done.returncode != 0:
            raise CommandError(done.returncode, argv, out, err)
        return done

    def argv(self, argv: list[str]) -> list[str]:
        """Return the command line that runs argv inside the host, for a caller that starts processes by itself."""
        return ["nsenter", "-t", str(self._pid), "-m", "-u", "-i", "-n", "-p", "--", *argv]

    def virsh(
        self, *args: str, input: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run virsh inside the host, on the usual socket.

        Args:
            *args: virsh's command and its arguments.
            input: the text on its standard input; «/dev/stdin» as a file name reads it.
            check: raise when virsh fails.
            timeout: seconds.

        Returns:
            The status and both outputs, as text.

        Raises:
            As run().
        """
        return self.run(["virsh", "-q", "-c", self.uri, *args], input=input, check=check, timeout=timeout)

    def define(self, xml: str) -> None:
        """Define a domain.

        Args:
            xml: its definition.

        Raises:
            subprocess.CalledProcessError: libvirt refused it.
        """
        self.virsh("define", "--file", "/dev/stdin", input=xml)

    def dumpxml(self, domain: str, *args: str) -> str:
        """Return a domain's definition as libvirt prints it.

        Args:
            domain: its name.
            *args: more of virsh dumpxml's arguments, as «--inactive».

        Raises:
            subprocess.CalledProcessError: there is no such domain.
        """
        return self.virsh("dumpxml", domain, *args).stdout

    def attach(self, domain: str, xml: str, *args: str) -> None:
        """Attach a device to a domain.

        Args:
            domain: its name.
            xml: the device.
            *args: more of virsh attach-device's arguments, as «--live» and «--config».

        Raises:
            subprocess.CalledProcessError: libvirt refused it.
        """
        self.virsh("attach-device", domain, "/dev/stdin", *args, input=xml)

    def detach(self, domain: str, xml: str, *args: str) -> None:
        """Ask for a device to be detached from a domain. A running guest lets it go in its own time.

        Args:
            domain: its name.
            xml: the device.
            *args: more of virsh detach-device's arguments, as «--live» and «--config».

        Raises:
            subprocess.CalledProcessError: libvirt refused it.
        """
        self.virsh("detach-device", domain, "/dev/stdin", *args, input=xml)

    def migrate(self, domain: str, other: Host, *args: str, timeout: float = 120.0) -> None:
        """Migrate a running domain to another host, live, over a socket of that host's directory.

        Its disks and its console must be files that both hosts see at the same path.

        Args:
            domain: its name.
            other: the host to migrate it to.
            *args: more of virsh migrate's arguments, as «--persistent» and «--undefinesource».
            timeout: seconds.

        Raises:
            subprocess.CalledProcessError: it failed; the domain runs on here.
        """
        path = other.directory / "migrate.sock"
        self.virsh(
            "migrate", "--live", "--unsafe", domain, other.uri, "--migrateuri", f"unix://{path}", *args, timeout=timeout
        )

    def write(self, path: str, data: str, mode: int = 0o644) -> None:
        """Write a file inside the host; its directories are made, and it appears at once and whole.

        Args:
            path: absolute, as seen inside. Only what lies in a private directory stays private.
            data: the content.
            mode: the permission bits.

        Raises:
            subprocess.CalledProcessError: it could not be written.
        """
        self.run(["sh", "-c", WRITE, "sh", path, f"{mode:04o}"], input=data)

    def read(self, path: str) -> str:
        """Return the content of a file inside the host.

        Args:
            path: absolute, as seen inside.

        Raises:
            subprocess.CalledProcessError: it could not be read.
        """
        return self.run(["cat", "--", path]).stdout

    def outside(self, path: str) -> Path:
        """Return where a file of a private directory is as seen from outside the host.

        Args:
            path: absolute, as seen inside, without symbolic links.

        Raises:
            ValueError: it is in none of the private directories.
        """
        for inside, below in PRIVATE.items():
            if path.startswith(f"{inside}/"):
                return self.directory / below / path[len(inside) + 1 :]
        raise ValueError(f"not in a private directory: {path}")

    def log(self) -> str:
        """Return the text of libvirtd's log since the host's start; empty while there is none."""
        return _text(self.outside(DAEMON_LOG))

    def guest_log(self, domain: str) -> str:
        """Return the text of QEMU's log of a domain; empty while there is none."""
        return _text(self.outside(f"/var/log/libvirt/qemu/{domain}.log"))

    def save_cache(self, seed: Path) -> None:
        """Copy libvirt's cache of emulator capabilities, for other hosts to start from.

        Args:
            seed: the directory to make; it must not exist.
        """
        shutil.copytree(self.directory / PRIVATE["/var/cache/libvirt"], seed)

    def _make_directories(self) -> None:
        """Make the private directories: a copy of the machine's settings without its guests, the rest empty."""
        self.directory.mkdir(parents=True, mode=0o700)
        subprocess.run(["cp", "-a", "/etc", str(self.directory / "etc")], check=True)
        for inside, below in PRIVATE.items():
            if inside == "/var/cache/libvirt" and self._seed is not None:
                shutil.copytree(self._seed, self.directory / below)
            else:
                (self.directory / below).mkdir(exist_ok=True)
        for below in ("run/libvirt", "run/lock", "run/user"):
            (self.directory / below).mkdir()
        self._write_settings()

    def _write_settings(self) -> None:
        """Write libvirt's settings, and leave out the machine's own guests, networks and hooks."""
        config = self.directory / "etc" / "libvirt"
        for name in ("qemu", "hooks", "storage", "secrets"):
            shutil.rmtree(config / name, ignore_errors=True)
        (config / "hooks").mkdir(parents=True)
        daemon = DAEMON_SETTINGS.format(uuid=self.uuid, log=DAEMON_LOG)
        (config / "libvirtd.conf").write_text(daemon, encoding="utf-8")
        (config / "qemu.conf").write_text(QEMU_SETTINGS, encoding="utf-8")
        (self.directory / "etc" / "hostname").write_text(f"{self.name}\n", encoding="utf-8")
        (self.directory / "etc" / "hosts").write_text(f"127.0.0.1 localhost {self.name}\n", encoding="utf-8")

    def _enter_namespaces(self) -> None:
        """Start the first process, which makes the namespaces, and wait until they are complete."""
        binds = [part for inside, below in PRIVATE.items() for part in (str(self.directory / below), inside)]
        flags = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        # A session of its own keeps the terminal's interrupt away from it: the tests end it in their own time.
        self._init = subprocess.Popen(
            ["unshare", *flags, "--propagation", "private", "--", "sh", "-c", INIT, "sh", self.name, *binds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        assert self._init.stdout is not None and self._init.stderr is not None
        line = self._init.stdout.readline()
        if not line:
            raise HostError(f"{self.name}: no namespaces: {self._init.stderr.read()}")
        self._pid = int(line)

    def _leave_namespaces(self) -> None:
        """Close the first process's input. The kernel then kills the tree before that process is reaped."""
        process, self._init, self._pid = self._init, None, 0
        if process is None:
            return
        try:
            process.communicate(timeout=STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise HostError(f"{self.name}: its processes do not end") from None

    def _daemon_socket(self) -> str:
        """Return the path, inside, of the socket that the settings make libvirtd serve."""
        text = self.read(DAEMON_CONF)
        found = re.findall(r'^\s*unix_sock_dir\s*=\s*(".*?")', text, re.MULTILINE)
        directory = str(ast.literal_eval(found[-1])) if found else "/run/libvirt"
        return f"{directory}/libvirt-sock"

    def _daemon_answers(self) -> bool:
        """Whether libvirtd completes a call."""
        uri = f"qemu:///system?socket={self._daemon_socket()}"
        return self.run(["virsh", "-q", "-c", uri, "uri"], check=False).returncode == 0

    def _lives(self, pid: int) -> bool:
        """Whether a process of the host, counted inside, exists."""
        return self.run(["test", "-d", f"/proc/{pid}"], check=False).returncode == 0

    def _wait(self, what: str, seconds: float, done: Callable[[], bool]) -> None:
        """Poll until done() is true.

        Raises:
            HostError: it was not in that many seconds; with what, and the end of libvirtd's log.
        """
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise HostError(f"{self.name}: {what}\n{self._log_tail()}")
            time.sleep(POLL)

    def _log_tail(self) -> str:
        """Return the last lines of libvirtd's log."""
        return "\n".join(self.log().splitlines()[-20:])
