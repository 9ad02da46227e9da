"""Hosts with libvirt, each a Debian release of its own booted in a container, as an administrator has them.

A root is made once, by mmdebstrap, and never changed: what a container writes is kept in memory. So nothing of the
machine that runs the tests is in there, and nothing of a container is left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.harness import guest_image
from tests.harness.startable import Startable
from tests.helpers.paths import PROJECT

RELEASES = ("bookworm", "trixie")
"""Debian 12 has libvirt 9.0, Debian 13 has libvirt 11.3."""

NEWEST = "sid"
"""Debian's unstable release has the newest libvirt. It only judges layouts: its other parts change daily."""

PACKAGES = (
    "libvirt-daemon-system",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "qemu-system-ppc",
)
"""No Python, nothing that papr-hook needs: a fresh host has none of it."""

INITS = {
    "systemd": ("systemd-sysv", "dbus", "libpam-systemd"),
    "sysvinit": ("sysvinit-core", "libvirt-daemon-system-sysv", "procps"),
    "none": ("python3-lxml", "python3-libvirt", "qemu-utils", "ipxe-qemu", "iproute2", "procps"),
}
"""What has a host boot, by the name of its first process. Without one, the root is for hosts that are not booted, which
run papr-hook from the checkout."""

BOOT_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05

CHECKOUT = "/srv/papr-hook"
"""Where a host has its copy of the project."""

PARTS = (
    "completion",
    "install.sh",
    "installer",
    "hooks",
    "init.d",
    "man",
    "papr_hook",
    "selinux",
    "systemd",
    "demo",
    "tests/__init__.py",
    "tests/harness",
)


class HostError(Exception):
    """A root could not be made, or a host not be booted."""


def make_root(release: str, directory: Path, init: str = "systemd") -> Path:
    """The root of a release below a directory, which may have it already; takes half a minute and 450 MB."""
    root = directory / f"root-{release}-{init}"
    if root.is_dir():
        return root
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="root-", dir=directory) as name:
        fresh = Path(name) / "root"
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES + INITS[init])}"]
        argv += ["--aptopt=APT::Install-Recommends false", "--dpkgopt=force-unsafe-io"]
        if release == NEWEST:
            # Its lists are valid for a week only, and a mirror may keep older ones.
            argv.append("--aptopt=Acquire::Check-Valid-Until false")
        # guest_image.build() finds the mirror of the machine's own apt the same way.
        done = subprocess.run([*argv, release, str(fresh), guest_image.mirror()], capture_output=True, text=True)
        if done.returncode != 0:
            raise HostError(f"{release}: mmdebstrap: status {done.returncode}\n{done.stderr}")
        if init == "systemd":
            # It would suspend the guests when the host stops: a test that looks at that takes the link away.
            (fresh / "etc/systemd/system/libvirt-guests.service").symlink_to("/dev/null")
        fresh.rename(root)
    return root


class BootedHost(Startable):
    """A host with systemd; a context manager that boots it, ends it, and removes every trace of it."""

    INIT = "systemd"

    def __init__(self, root: Path, name: str, volatile: bool = True, daemon: str = "libvirtd") -> None:
        """Prepare a host.

        Args:
            root: A root as make_root() returns it.
            name: The host's name.
            volatile: Whether the root stays as it is, and what the host writes is in memory.
            daemon: The daemon that serves its QEMU guests.
        """
        self.name = name
        self.daemon = daemon
        self._root = root
        self._volatile = volatile
        self._cgroup = _own_cgroup() / f"papr-{name}-{os.getpid()}"
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 # stop() closes it
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def cgroup(self) -> Path:
        """The host's control group, of version 2."""
        return self._cgroup

    @property
    def clients(self) -> str:
        """The read-write socket that clients of its daemon connect to."""
        return f"/run/libvirt/{self._socket_name}"

    @property
    def upstream(self) -> str:
        """The daemon's own read-write socket, behind a gateway."""
        return f"/run/libvirt/upstream/{self._socket_name}"

    @property
    def gateway(self) -> str:
        """The service of its daemon's gateway, without the suffix."""
        return f"papr-hook-gateway@{self.daemon}"

    @property
    def units(self) -> str:
        """The daemon's units: its service, and the sockets that start it."""
        return " ".join(f"{self.daemon}{suffix}" for suffix in (".service", ".socket", "-ro.socket", "-admin.socket"))

    @property
    def _socket_name(self) -> str:
        return "libvirt-sock" if self.daemon == "libvirtd" else f"{self.daemon}-sock"

    def run(
        self, *argv: str, input: str | bytes | None = None, check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root; with check, raise HostError where it fails."""
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run(self.argv(*argv), input=data or b"", capture_output=True, timeout=timeout)
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        if check and done.returncode != 0:
            raise HostError(f"{self.name}: {' '.join(argv)}: status {done.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(argv, done.returncode, out, err)

    def sh(self, script: str, *, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside."""
        return self.run("sh", "-c", script, input=input, check=check)

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs a command inside, with a root's usual environment."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["env", "-i", "-C", "/root", path, "HOME=/root", "LC_ALL=C.UTF-8", *argv]
        return ["nsenter", "-t", str(self._leader), "-a", "--", *inside]

    def virsh(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run virsh inside."""
        return self.run("virsh", "-q", "-c", "qemu:///system", *args, input=input, check=check)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside; its directory is made."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1" && chmod "$2" "$1"', "sh", path, f"{mode:o}", input=text)

    def outside(self, path: str) -> Path:
        """Where a file inside is as seen from outside, while the host runs."""
        return Path(f"/proc/{self._leader}/root{path}")

    def copy_project(self, to: str = CHECKOUT) -> None:
        """Copy what an installation needs of the project, in place of an earlier copy."""
        pack = ["tar", "-C", str(PROJECT), "--exclude=__pycache__", "-c", *PARTS]
        packed = subprocess.run(pack, check=True, capture_output=True).stdout
        self.run("sh", "-c", 'rm -rf "$1" && mkdir "$1" && tar -C "$1" -x', "sh", to, input=packed)

    @contextlib.contextmanager
    def shut_down(self, directory: str) -> Iterator[Path]:
        """Shut the host down as its administrator does; where a directory of it can be seen until all is over.

        An open directory keeps its file system.
        """
        assert self._nspawn is not None
        number = os.open(self.outside(directory), os.O_DIRECTORY)
        try:
            self.run("systemctl", "poweroff", check=False)
            self._nspawn.wait(2 * STOP_SECONDS)
            yield Path(f"/proc/self/fd/{number}")
        finally:
            os.close(number)

    def start(self) -> None:
        """Boot the host. Raises HostError if it does not boot."""
        self._cgroup.mkdir()
        # Two hosts in one cgroup would take each other's services for their own.
        enter = f'echo $$ >"{self._cgroup}/cgroup.procs" && exec "$@"'
        nspawn = ["systemd-nspawn", "-q", "-D", str(self._root), f"--machine={self.name}", "-b"]
        nspawn += ["--volatile=overlay"] if self._volatile else []
        nspawn += ["--register=no", "--keep-unit", "--console=pipe"]
        self._nspawn = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "sh", "-c", enter, "sh", *nspawn],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            start_new_session=True,
        )
        self._wait("has no first process", self._find_leader)
        self._wait("does not boot", self._booted)

    def stop(self) -> None:
        """End the host, with all its processes and mounts; doing it twice is harmless."""
        nspawn, self._nspawn = self._nspawn, None
        if nspawn is not None:
            # The first has it shut down.
            for number in (signal.SIGTERM, signal.SIGKILL):
                nspawn.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    nspawn.wait(STOP_SECONDS)
                    break
        if self._cgroup.is_dir():
            for path, _, _ in os.walk(self._cgroup, topdown=False):
                os.rmdir(path)
        self._output.close()

    def _find_leader(self) -> bool:
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        for child in children.read_text().split() if children.exists() else ():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == self.INIT:
                    self._leader = int(child)
        return self._leader != 0

    def _booted(self) -> bool:
        done = self.run("systemctl", "is-system-running", check=False)
        return done.stdout.strip() in ("running", "degraded")

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        assert self._nspawn is not None
        while not done():
            if time.monotonic() > deadline or self._nspawn.poll() is not None:
                self._output.seek(0)
                raise HostError(f"{self.name}: {what}\n{self._output.read()[-3000:]}")
            time.sleep(POLL_SECONDS)


class SysvHost(BootedHost):
    """A host with sysvinit."""

    INIT = "init"

    def stop(self) -> None:
        """End the host, which nspawn has no signal for."""
        if self._nspawn is not None and self._leader:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run("init", "0", check=False)
                self._nspawn.wait(STOP_SECONDS)
        super().stop()

    def _booted(self) -> bool:
        # What inittab has run when the scripts of the runlevel are through.
        return self.run("pgrep", "-x", "getty", check=False).returncode == 0


@contextlib.contextmanager
def started(roots: dict[str, Path], release: str, name: str | None = None) -> Iterator[BootedHost]:
    """Boot a host with a copy of the project. Its name is that of its release unless another one is given."""
    with BootedHost(roots[release], name or release) as host:
        host.copy_project()
        yield host


def _own_cgroup() -> Path:
    """The directory of this process's cgroup, of version 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    unified = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    own = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    if not unified or not own:
        raise HostError("systemd needs cgroups of version 2, and this machine has none mounted")
    return Path(unified[0] + own[0])
