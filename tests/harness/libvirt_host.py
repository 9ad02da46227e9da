"""Run a libvirt host for the tests: a real libvirtd that shares no state with the machine."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from .namespaces import PRIVATE, STOP_TIMEOUT, CommandError, HostError, IsolatedTree
from .startable import Startable

__all__ = ["CommandError", "Host", "HostError"]

SOCKET: Final = "/run/libvirt/libvirt-sock"
DAEMON_CONF: Final = "/etc/libvirt/libvirtd.conf"
DAEMON_LOG: Final = "/var/log/libvirt/libvirtd.log"
DAEMON_PID: Final = "/run/libvirt/libvirtd.pid"
CACHE: Final = "/var/cache/libvirt"

# The longest path in a sockaddr_un, without its final null byte.
MAX_SOCKET_PATH: Final = 107

START_TIMEOUT: Final = 60.0  # seconds; the first start probes every emulator

# libvirtd's log line for a SIGHUP, and the hook that it looks up last.
RELOADED: Final = "Reloading configuration on SIGHUP"
LAST_HOOK: Final = "/etc/libvirt/hooks/bhyve"

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

# Everything runs as root, and nothing changes a file's owner: two hosts use the same images at the same time.
QEMU_SETTINGS: Final = """\
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
"""


class Host(IsolatedTree, Startable):
    """One libvirt host: a context manager that starts it and removes every trace of it.

    Args:
        root: as for IsolatedTree, and short enough for the paths of Unix sockets below it.
        name: as for IsolatedTree.
        capability_cache: a directory with libvirt's cache of emulator capabilities, as save_cache() writes it. It is
            copied and never changed. With it, libvirtd does not probe the emulators.
        release: as for IsolatedTree.

    Raises:
        ValueError: name is not a host name, or root is too long for a socket below it.
    """

    def __init__(
        self, root: Path, name: str, capability_cache: Path | None = None, release: Path | None = None
    ) -> None:
        super().__init__(root, name, release)
        self.uuid = str(uuid.uuid4())
        self._capability_cache = capability_cache
        if len(os.fsencode(self.outside(SOCKET))) > MAX_SOCKET_PATH:
            raise ValueError(f"too long for a socket below it: {root}")

    @property
    def uri(self) -> str:
        """The libvirt URI of the usual socket, /run/libvirt/libvirt-sock. It works inside the host and outside."""
        return f"qemu:///system?socket={self.outside(SOCKET)}"

    @property
    def daemon_uri(self) -> str:
        """The libvirt URI of the socket that libvirtd itself serves, as unix_sock_dir in its settings says.

        It differs from uri if a gateway listens on the usual socket.
        """
        return f"qemu:///system?socket={self.outside(self._daemon_socket())}"

    def start(self) -> None:
        """Create the namespaces and the private directories, and start libvirtd.

        Raises:
            HostError: a step failed, with the step's output. Nothing is left running.
        """
        if self.running:
            raise HostError(f"{self.name}: runs already")
        try:
            self.enter_namespaces()
            self.start_daemon()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the host, guests included, with its mounts, and delete its directory.

        Calling this twice, or before a start, does nothing.

        Raises:
            HostError: the process tree did not end in 30 s.
        """
        self.leave_namespaces()

    def start_daemon(self) -> None:
        """Start libvirtd, and wait up to 60 s until it answers.

        Raises:
            HostError: it did not start or does not answer. The text ends with its log.
        """
        done = self.run(["libvirtd", "-d", "-p", DAEMON_PID], check=False, timeout=START_TIMEOUT)
        if done.returncode != 0:
            raise HostError(f"{self.name}: libvirtd: {done.stderr}{self.details()}")
        self.wait("libvirtd does not answer", START_TIMEOUT, self._daemon_answers)

    def stop_daemon(self) -> None:
        """Stop libvirtd, and wait until it has exited. Guests keep running.

        libvirtd 11.3 hung at its end in 3 of 99 cases, without papr-hook. So one that lives 30 s longer is killed, as
        systemd does it in the end.

        Raises:
            HostError: it does not run, or does not exit.
        """
        pid = self.daemon_pid()
        self.run(["kill", str(pid)])
        with suppress(HostError):
            self.wait("libvirtd does not end", STOP_TIMEOUT, lambda: not self._lives(pid))
            return
        self.run(["kill", "-KILL", str(pid)])
        self.wait("libvirtd cannot be killed", STOP_TIMEOUT, lambda: not self._lives(pid))

    def restart(self) -> None:
        """Stop libvirtd and start it again, so that it reads its settings and reconnects to its guests.

        Raises:
            HostError: libvirtd did not stop or did not start.
        """
        self.stop_daemon()
        self.start_daemon()

    def reload(self) -> None:
        """Send libvirtd a SIGHUP, and wait until it has looked up its hooks.

        libvirtd also reads the domain XML files again. This does not wait for that.

        Raises:
            HostError: libvirtd did not log the reload in 30 s.
        """
        reloads = self.log().count(RELOADED)

        def reloaded() -> bool:
            parts = self.log().split(RELOADED)
            return len(parts) > reloads + 1 and LAST_HOOK in parts[-1]

        self.run(["kill", "-HUP", str(self.daemon_pid())])
        self.wait("libvirtd does not reload", STOP_TIMEOUT, reloaded)

    def daemon_pid(self) -> int:
        """Return libvirtd's process id as counted inside the host.

        Raises:
            HostError: libvirtd does not run.
        """
        done = self.run(["cat", DAEMON_PID], check=False)
        if done.returncode != 0 or not done.stdout.strip():
            raise HostError(f"{self.name}: libvirtd does not run")
        return int(done.stdout)

    def virsh(
        self, *args: str, input: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run virsh inside the host, on the usual socket.

        Args:
            *args: virsh's command and its arguments.
            input: the text on its standard input. Pass /dev/stdin as a file name to read it.
            check: raise when virsh fails.
            timeout: seconds.

        Returns:
            The status and both outputs, as text.

        Raises:
            HostError, subprocess.CalledProcessError, subprocess.TimeoutExpired: as for run().
        """
        return self.run(["virsh", "-q", "-c", self.uri, *args], input=input, check=check, timeout=timeout)

    def define(self, xml: str) -> None:
        """Define a domain.

        Args:
            xml: its domain XML.

        Raises:
            subprocess.CalledProcessError: libvirt refused it.
        """
        self.virsh("define", "--file", "/dev/stdin", input=xml)

    def dumpxml(self, domain: str, *args: str) -> str:
        """Return the domain XML that virsh prints.

        Args:
            domain: its name.
            *args: more arguments of virsh dumpxml, such as --inactive.

        Raises:
            subprocess.CalledProcessError: there is no such domain.
        """
        return self.virsh("dumpxml", domain, *args).stdout

    def attach(self, domain: str, xml: str, *args: str) -> None:
        """Attach a device to a domain.

        Args:
            domain: its name.
            xml: the device.
            *args: more arguments of virsh attach-device, such as --live and --config.

        Raises:
            subprocess.CalledProcessError: libvirt refused it.
        """
        self.virsh("attach-device", domain, "/dev/stdin", *args, input=xml)

    def detach(self, domain: str, xml: str, *args: str) -> None:
        """Ask libvirt to detach a device. A running guest releases it later.

        Args:
            domain: its name.
            xml: the device.
            *args: more arguments of virsh detach-device, such as --live and --config.

        Raises:
            subprocess.CalledProcessError: libvirt refused it.
        """
        self.virsh("detach-device", domain, "/dev/stdin", *args, input=xml)

    def migrate(self, domain: str, other: Host, *args: str, timeout: float = 120.0) -> None:
        """Migrate a running domain to another host, live, over a socket in that host's directory.

        The domain's disks and console must be files that both hosts see at the same path.

        Args:
            domain: its name.
            other: the host to migrate it to.
            *args: more arguments of virsh migrate, such as --persistent and --undefinesource.
            timeout: seconds.

        Raises:
            subprocess.CalledProcessError: it failed, and the domain keeps running here.
        """
        path = other.directory / "migrate.sock"
        self.virsh(
            "migrate", "--live", "--unsafe", domain, other.uri, "--migrateuri", f"unix://{path}", *args, timeout=timeout
        )

    def log(self) -> str:
        """Return libvirtd's log since the host's start, or an empty string if there is none yet."""
        log = self.outside(DAEMON_LOG)
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def details(self) -> str:
        """Return the last lines of libvirtd's log."""
        return "\n".join(self.log().splitlines()[-20:])

    def save_cache(self, directory: Path) -> None:
        """Copy libvirt's cache of emulator capabilities, for other hosts to start from.

        Args:
            directory: the directory to create; it must not exist.
        """
        shutil.copytree(self.directory / PRIVATE[CACHE], directory)

    def _make_directories(self) -> None:
        """Create the private directories, with libvirt's settings and without the machine's guests and hooks."""
        super()._make_directories()
        (self.directory / "run" / "libvirt").mkdir()
        if self._capability_cache is not None:
            shutil.copytree(self._capability_cache, self.directory / PRIVATE[CACHE], dirs_exist_ok=True)
        config = self.directory / "etc" / "libvirt"
        for name in ("qemu", "hooks", "storage", "secrets"):
            shutil.rmtree(config / name, ignore_errors=True)
        (config / "hooks").mkdir(parents=True)
        daemon = DAEMON_SETTINGS.format(uuid=self.uuid, log=DAEMON_LOG)
        (config / "libvirtd.conf").write_text(daemon, encoding="utf-8")
        (config / "qemu.conf").write_text(QEMU_SETTINGS, encoding="utf-8")

    def _daemon_socket(self) -> str:
        """Return the path inside of the socket that libvirtd's settings name."""
        text = self.read(DAEMON_CONF)
        found = re.findall(r'^\s*unix_sock_dir\s*=\s*(".*?")', text, re.MULTILINE)
        directory = str(ast.literal_eval(found[-1])) if found else "/run/libvirt"
        return f"{directory}/libvirt-sock"

    def _daemon_answers(self) -> bool:
        """Return whether libvirtd completes a call."""
        uri = f"qemu:///system?socket={self._daemon_socket()}"
        return self.run(["virsh", "-q", "-c", uri, "uri"], check=False).returncode == 0

    def _lives(self, pid: int) -> bool:
        """Return whether a process of the host exists, by its id inside."""
        return self.run(["test", "-d", f"/proc/{pid}"], check=False).returncode == 0
