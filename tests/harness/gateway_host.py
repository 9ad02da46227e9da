"""Run a gateway in front of a test host's libvirtd."""

from __future__ import annotations

import socket
import subprocess

from tests.harness.libvirt_host import Host
from tests.helpers.paths import PROJECT
from tests.helpers.polling import wait_until

CLIENTS = "/run/libvirt/libvirt-sock"
UPSTREAM = "/run/libvirt/upstream/libvirt-sock"
ADMIN = "libvirtd:///system?socket=/run/libvirt/upstream/libvirt-admin-sock"
PYTHON = "/usr/bin/python3"
GROUP = 4242
UID = 1234
START = f"echo $$ >/run/gateway.pid; exec env PYTHONPATH={PROJECT} {PYTHON} -m papr_hook gateway serve "
DEADLINE = 60.0


class GatewayHost:
    """A host whose libvirtd has moved its socket, and a gateway where that was."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._process: subprocess.Popen[bytes] | None = None
        config = host.read("/etc/libvirt/libvirtd.conf")
        host.run(["mkdir", "-p", "/run/libvirt/upstream"])
        host.write("/etc/group", f"{host.read('/etc/group')}peer:x:{UID}:\npeers:x:{GROUP}:\n")
        host.write("/etc/passwd", f"{host.read('/etc/passwd')}peer:x:{UID}:{UID}::/nonexistent:/bin/sh\n")
        host.write("/etc/libvirt/libvirtd.conf", f'{config}unix_sock_dir = "/run/libvirt/upstream"\n')
        host.restart()

    def start(self, arguments: str = f"--listen {CLIENTS}") -> None:
        """Start it, and wait until it serves."""
        self.host.run(["rm", "-f", CLIENTS])
        self._process = subprocess.Popen(self.host.argv(["sh", "-c", START + arguments]))
        wait_until(lambda: self.host.virsh("uri", check=False).returncode == 0)

    def stop(self) -> None:
        """Kill it, but not the processes that serve clients."""
        if self._process is not None:
            self.host.run(["kill", "-9", str(self.pid)], check=False)
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id inside the host."""
        return int(self.host.read("/run/gateway.pid"))

    def relays(self) -> list[int]:
        """Return the processes that serve clients, one for each identity."""
        argv = ["pgrep", "-x", "papr-relay", "-P", str(self.pid)]
        return [int(line) for line in self.host.run(argv, check=False).stdout.split()]

    def clients(self) -> int:
        """Return how many clients are connected. A relay has two or three sockets beside two for each client."""
        script = "ls -l /proc/$1/fd | grep -c socket: || true"
        counts = [self.host.run(["sh", "-c", script, "sh", str(pid)]).stdout for pid in self.relays()]
        return sum((int(count) - 2) // 2 for count in counts)

    def fds(self) -> int:
        """Return how many file descriptors the main process has open, but for those to its relays."""
        return len(self.host.run(["ls", f"/proc/{self.pid}/fd"]).stdout.split()) - len(self.relays())

    def connect(self) -> socket.socket:
        """A connection of ours, with a deadline."""
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(DEADLINE)
        one.connect(str(self.host.outside(CLIENTS)))
        return one

    def python(self, program: str, *argv: str) -> str:
        """Run a libvirt-python program inside the host; what it printed."""
        return self.host.run([PYTHON, "-c", program, *argv]).stdout

    def via_daemon(self, *args: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run virsh on libvirtd's own socket, past the gateway."""
        return self.host.run(["virsh", "-q", "-c", self.host.daemon_uri, *args], input=input, check=False)

    def same_result(self, *args: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run virsh past the gateway and through it, assert that both print the same, and return the result."""
        direct = self.via_daemon(*args, input=input)
        through = self.host.virsh(*args, input=input, check=False)
        assert (through.returncode, through.stdout, through.stderr) == (direct.returncode, direct.stdout, direct.stderr)
        return through
