"""Run processes in a tree of their own that shares no state with the machine.

A tree has its own mount, PID, network, UTS and IPC namespaces. It sees the machine's programs, a private copy of /etc,
and private directories for /run and for libvirt's files. Closing the pipe that its first process reads makes the
kernel end every process and every mount of the tree. The kernel also does so if the test process is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["CommandError", "HostError", "IsolatedTree"]

PROJECT: Final = Path(__file__).resolve().parents[2]

# The path inside, and the directory's name below the tree's own directory. /run is private as a whole, because a
# gateway or a hook may put sockets and locks there.
PRIVATE: Final = {
    "/etc": "etc",
    "/run": "run",
    "/var/lib/libvirt": "lib",
    "/var/log/libvirt": "log",
    "/var/cache/libvirt": "cache",
}

STOP_TIMEOUT: Final = 30.0  # seconds
POLL: Final = 0.02  # seconds

# The whole environment of commands inside, as a service manager sets it for libvirtd.
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/root",
}

# The first process of the namespaces. It reads its process id from the machine's /proc, mounts the private
# directories, prints the id, and waits for the end of its input. The shell reaps orphaned daemons, because libvirt
# takes a zombie emulator for a running one. /sys is mounted again for the network devices of the own network
# namespace, and without the cgroups: two hosts with guests of the same name would share one cgroup.
INIT: Final = r"""
set -e
read -r pid rest </proc/self/stat
mount -t proc proc /proc
umount -R -l /sys
mount -t sysfs sysfs /sys
ip link set lo up
hostname "$1"
release=$2 top=$3
shift 3
if [ -n "$release" ]; then
    mkdir -p "$top/layer" "$top/root"
    mount -t tmpfs layer "$top/layer"
    mkdir "$top/layer/upper" "$top/layer/work"
    mount -t overlay -o "lowerdir=$release,upperdir=$top/layer/upper,workdir=$top/layer/work" overlay "$top/root"
    for shared in /proc /sys /dev /tmp /var/tmp "$1"; do
        mkdir -p "$top/root$shared"
        mount --rbind "$shared" "$top/root$shared"
    done
fi
shift
while [ $# -gt 0 ]; do mount --bind "$1" "${release:+$top/root}$2"; shift 2; done
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


class HostError(Exception):
    """A host could not be started, or its daemon did not answer."""


class CommandError(subprocess.CalledProcessError):
    """A command inside a tree failed. Its text includes the command's output."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stdout}{self.stderr}"


def _communicate(process: subprocess.Popen[str], text: str | None, timeout: float) -> tuple[str, str]:
    """Feed a session leader's stdin and return its outputs.

    On a timeout this kills the process group: nsenter's child would otherwise survive and keep the pipes open.
    """
    try:
        return process.communicate(text or "", timeout=timeout)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise


class IsolatedTree:
    """A process tree with private namespaces and directories.

    Args:
        root: a directory, which several trees may share. It is created if it does not exist. It must not be below
            /etc, /run or libvirt's directories in /var.
        name: the host name of the tree, and the name of its directory below root: letters, digits and hyphens.
        release: the root directory of another release, whose programs the tree sees in place of the machine's. It is
            not changed. /tmp, /var/tmp and the project are the machine's.

    Raises:
        ValueError: name is not a host name.
    """

    def __init__(self, root: Path, name: str, release: Path | None = None) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
            raise ValueError(f"not a host name: {name!r}")
        self.name = name
        self.directory = root.resolve() / name
        self.release = release
        self._init: subprocess.Popen[str] | None = None
        self._pid = 0

    @property
    def pid(self) -> int:
        """The tree's first process as the machine counts it, or 0 while the tree is stopped."""
        return self._pid

    @property
    def running(self) -> bool:
        """Whether the namespaces exist."""
        return self._init is not None

    def run(
        self,
        argv: list[str],
        *,
        input: str | None = None,
        check: bool = True,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root, in /, with the environment of a service.

        Args:
            argv: the command and its arguments. The command is looked up in the usual PATH.
            input: the text on its standard input, or None for an empty one.
            check: raise an error if the exit status is not 0.
            timeout: seconds after which the command and its children are killed.

        Returns:
            The status and both outputs, as text.

        Raises:
            HostError: the tree does not run.
            subprocess.CalledProcessError: the command failed. Its stderr has the message.
            subprocess.TimeoutExpired: the command was killed.
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
        """Return the command line that runs argv inside, for callers that start a process themselves."""
        enter = ["nsenter", "-t", str(self._pid), "-m", "-u", "-i", "-n", "-p", "--"]
        return [*enter, *(["chroot", str(self.directory / "root")] if self.release is not None else []), *argv]

    def write(self, path: str, data: str, mode: int = 0o644) -> None:
        """Write a file inside, atomically, and create its directories.

        Args:
            path: the absolute path inside. Only files in a private directory stay private.
            data: the content.
            mode: the permission bits.

        Raises:
            subprocess.CalledProcessError: it could not be written.
        """
        self.run(["sh", "-c", WRITE, "sh", path, f"{mode:04o}"], input=data)

    def read(self, path: str) -> str:
        """Return the content of a file inside.

        Args:
            path: the absolute path inside.

        Raises:
            subprocess.CalledProcessError: it could not be read.
        """
        return self.run(["cat", "--", path]).stdout

    def outside(self, path: str) -> Path:
        """Return the machine's path of a file in a private directory.

        Args:
            path: the absolute path inside, without symbolic links.

        Raises:
            ValueError: it is not in a private directory.
        """
        for inside, below in PRIVATE.items():
            if path.startswith(f"{inside}/"):
                return self.directory / below / path[len(inside) + 1 :]
        raise ValueError(f"not in a private directory: {path}")

    def enter_namespaces(self) -> None:
        """Create the private directories, and start the first process, which creates the namespaces.

        Raises:
            HostError: the namespaces could not be created.
        """
        self._make_directories()
        binds = [part for inside, below in PRIVATE.items() for part in (str(self.directory / below), inside)]
        places = [str(self.release or ""), str(self.directory), str(PROJECT)]
        flags = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        # In its own session it does not get the terminal's SIGINT: the tests end it themselves.
        self._init = subprocess.Popen(
            ["unshare", *flags, "--propagation", "private", "--", "sh", "-c", INIT, "sh", self.name, *places, *binds],
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

    def leave_namespaces(self) -> None:
        """End every process of the tree with its mounts, and delete its directory.

        The first process ends when its input is closed. The kernel kills the other processes before that process is
        reaped. Calling this twice, or before a start, does nothing.

        Raises:
            HostError: the process tree did not end in 30 s.
        """
        process, self._init, self._pid = self._init, None, 0
        if process is not None:
            try:
                process.communicate(timeout=STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise HostError(f"{self.name}: its processes do not end") from None
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def wait(self, failure: str, seconds: float, condition: Callable[[], bool]) -> None:
        """Poll a condition until it is true.

        Args:
            failure: the text of the error.
            seconds: the time limit.
            condition: called again and again.

        Raises:
            HostError: the condition was not true in time; with details().
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise HostError(f"{self.name}: {failure}\n{self.details()}")
            time.sleep(POLL)

    def details(self) -> str:
        """Return text for an error message: a subclass returns the end of a log."""
        return ""

    def _make_directories(self) -> None:
        """Create the private directories: a copy of /etc, and empty ones."""
        self.directory.mkdir(parents=True, mode=0o700)
        subprocess.run(["cp", "-a", f"{self.release or ''}/etc", str(self.directory / "etc")], check=True)
        for below in PRIVATE.values():
            (self.directory / below).mkdir(exist_ok=True)
        for below in ("run/lock", "run/user"):
            (self.directory / below).mkdir()
        (self.directory / "etc" / "hostname").write_text(f"{self.name}\n", encoding="utf-8")
        (self.directory / "etc" / "hosts").write_text(f"127.0.0.1 localhost {self.name}\n", encoding="utf-8")
