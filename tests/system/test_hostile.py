"""Users who attack the gateway, on a host with systemd, polkit and a memory limit.

libvirt refuses evil, who is in no group. good is in the group libvirt. What evil does to others must cost no more
through the gateway than on libvirt's own socket.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.booted_host import BootedHost, started
from tests.harness.limited_service import LimitedService
from tests.helpers.installation import CLIENTS, GATEWAY, SHARE, UPSTREAM, install
from tests.helpers.polling import wait_until

LIBRARY = """
import json, os, socket, struct, sys, time
from papr_hook.gateway import protocol as p

class Client:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.parser = p.PacketParser()

    def send(self, procedure, payload=b"", serial=1):
        self.sock.sendall(p.build_packet(procedure, p.Type.CALL, serial, 0, payload).data)

    def next(self):
        while (packet := self.parser.next_packet()) is None:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.parser.receive(data)
        return packet

    def call(self, procedure, payload=b"", serial=1):
        self.send(procedure, payload, serial)
        return self.next()

    def open(self):
        self.call(66)
        self.call(70)
        return self.call(1, p.uint(1) + p.string(b"qemu:///system") + p.uint(0)).status == 0

def define(xml, serial=5):
    return 350, p.string(xml) + p.uint(0), serial

BOMB = b'''<?xml version="1.0"?><!DOCTYPE d [<!ENTITY % a "&#37;b;&#37;b;&#37;b;&#37;b;&#37;b;&#37;b;&#37;b;&#37;b;">
<!ENTITY % b "&#37;c;&#37;c;&#37;c;&#37;c;&#37;c;&#37;c;&#37;c;&#37;c;">
<!ENTITY % c "&#37;d;&#37;d;&#37;d;&#37;d;&#37;d;">
<!ENTITY % d "&#37;e;&#37;e;&#37;e;&#37;e;&#37;e;&#37;e;&#37;e;"><!ENTITY % e ""> %a; %a; %a; %a;]><domain/>'''
HEAD = b"<domain type='qemu'><name>heavy</name><memory>1</memory>"
HEAD += b"<os><type arch='ppc64' machine='pseries'>hvm</type></os>"
CPUS = HEAD + b"<vcpu>1</vcpu><cputune>" + b"<vcpupin vcpu='0' cpuset='0-65535'/>" * 100 + b"</cputune></domain>"
MANY = HEAD + b"<metadata><x:a xmlns:x='y'>" + b"<b/>" * 600000 + b"</x:a></metadata></domain>"
path = sys.argv[1]
"""

ECHO = "print(json.dumps(result))"


@pytest.fixture(scope="module")
def host(roots: dict[str, Path]) -> Iterator[BootedHost]:
    """Boot a host with a gateway, and two users."""
    with started(roots, "bookworm", "hostile") as one:
        one.sh("useradd evil; useradd -G libvirt good")
        install(one)
        one.virsh("uri")
        yield one


@pytest.fixture(scope="module", autouse=True)
def service(host: BootedHost) -> Iterator[LimitedService]:
    """Let the gateway use 256 MiB."""
    with LimitedService(host, f"{GATEWAY}.service", 256 << 20) as one:
        yield one


def run_as(host: BootedHost, user: str, program: str, path: str = CLIENTS) -> object:
    """Run a program of a user, and return its result."""
    return json.loads(host.run(*python_of(user, f"{program}\n{ECHO}", path)).stdout)


def command_of(user: str, *argv: str) -> list[str]:
    """Return the command line that runs a command as a user."""
    return ["setpriv", "--reuid", user, "--regid", user, "--init-groups", *argv]


def python_of(user: str, program: str, path: str) -> list[str]:
    """Return the command line that runs a program, with LIBRARY, as a user."""
    return command_of(user, "env", f"PYTHONPATH={SHARE}", "python3", "-c", f"{LIBRARY}\n{program}", path)


def popen(host: BootedHost, *argv: str) -> subprocess.Popen[bytes]:
    """Start a program that goes on until its standard input is closed."""
    return subprocess.Popen(host.argv(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def seconds(host: BootedHost, user: str, path: str) -> float:
    """Return how long libvirt takes to answer a user's virsh."""
    began = time.monotonic()
    host.run(*command_of(user, "virsh", "-c", f"qemu:///system?socket={path}", "uri"))
    return time.monotonic() - began


@dataclass(frozen=True)
class Cost:
    """What an attack costs the host: CPU seconds and bytes of gateway and libvirtd, and good's wait in seconds."""

    cpu: float
    memory: int
    wait: float

    def __str__(self) -> str:
        return f"{self.cpu:.2f} s of CPU, {self.memory >> 20} MiB, {self.wait * 1000:.0f} ms until good has an answer"


@pytest.fixture(scope="module")
def libvirtd(host: BootedHost) -> Iterator[LimitedService]:
    """Measure libvirtd, without a limit that it could reach."""
    with LimitedService(host, "libvirtd.service", 8 << 30) as one:
        yield one


def measure(host: BootedHost, services: tuple[LimitedService, ...], path: str) -> Cost:
    """Have evil do what he can, and return what it costs while he is connected."""
    program = """
for xml in (BOMB, BOMB.decode().encode("utf-16"), CPUS) * 10:
    client = Client(path)
    client.open()
    client.send(*define(xml))
    client.sock.close()
for _ in range(500):
    client = Client(path)
    client.sock.sendall(b"x" * 28)
    client.sock.close()
clients = [Client(path) for _ in range(10)]
for client in clients:
    client.call(66)
    client.send(*define(BOMB))
print(json.dumps("held"), flush=True)
sys.stdin.read()
"""
    cpu, memory = (sum(getattr(service, name) for service in services) for name in ("cpu_seconds", "memory"))
    with popen(host, *python_of("evil", program, path)) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b'"held"\n'
        wait = min(seconds(host, "good", path) for _ in range(3))
        cost = Cost(
            sum(service.cpu_seconds for service in services) - cpu,
            sum(service.memory for service in services) - memory,
            wait,
        )
        process.stdin.close()
    return cost


def test_evil_side_by_side(
    host: BootedHost, service: LimitedService, libvirtd: LimitedService, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same attack costs the host little more through the gateway than on libvirt's own socket."""
    direct = measure(host, (service, libvirtd), UPSTREAM)
    through = measure(host, (service, libvirtd), CLIENTS)
    with capsys.disabled():
        print(f"\nevil directly: {direct}\nevil through the gateway: {through}")
    assert through.cpu - direct.cpu < 1
    assert through.memory - direct.memory < 32 << 20


def test_evil_is_not_looked_at(host: BootedHost, service: LimitedService) -> None:
    """What a client sends that libvirt has not let in reaches libvirt as it is, and costs next to nothing."""
    before, main = service.cpu_seconds, service.pid
    program = """
result = []
for xml in (BOMB, BOMB.decode().encode("utf-16"), CPUS) * 6:
    client = Client(path)
    result.append(client.open())
    client.send(*define(xml))
    client.sock.close()
"""
    assert run_as(host, "evil", program) == [False] * 18
    workers = "cat /proc/[0-9]*/comm | grep -c papr-worker"
    assert host.sh(workers).stdout == "1\n"  # the one that waits for a call
    assert service.cpu_seconds - before < 2
    assert service.memory < 128 << 20
    assert service.pid == main
    assert "DOCTYPE" not in host.run("journalctl", "-t", "papr-hook").stdout


def test_evil_holds_nobody_up(host: BootedHost) -> None:
    """With 19 connections that spin or wait, the next user's answer comes as soon as on libvirt's own socket."""
    program = """
clients = [Client(path) for _ in range(19)]
for client in clients:
    client.send(*define(BOMB))
print(json.dumps("held"), flush=True)
sys.stdin.read()
"""
    direct = min(seconds(host, "good", UPSTREAM) for _ in range(5))
    with popen(host, *python_of("evil", program, CLIENTS)) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b'"held"\n'
        through = min(seconds(host, "good", CLIENTS) for _ in range(5))
        process.stdin.close()
    assert through < 3 * direct + 0.5


def test_evil_fills_no_journal(host: BootedHost) -> None:
    """Malformed packets end their connections, and a few lines say so."""
    count = "journalctl -t papr-hook | wc -l"
    before = int(host.sh(count).stdout)
    program = """
result = 0
for _ in range(1000):
    client = Client(path)
    client.sock.sendall(b"x" * 28)
    try:
        result += client.sock.recv(1) == b""
    except ConnectionResetError:
        result += 1
"""
    assert run_as(host, "evil", program) == 1000
    assert int(host.sh(count).stdout) - before < 200


def test_evil_waits_for_himself(host: BootedHost) -> None:
    """His connections that are not let in wait in his own queue, and those in front are served."""
    program = """
clients = [Client(path) for _ in range(60)]
for client in clients[:5]:
    client.call(66)
result = len(clients)
"""
    assert run_as(host, "evil", program) == 60


@pytest.mark.parametrize("xml", ["CPUS", "MANY"])
def test_good_gets_libvirts_answer(host: BootedHost, service: LimitedService, xml: str) -> None:
    """Whatever a worker does with a domain XML, libvirt's answer comes, and a keepalive does not wait for it."""
    program = f"""
client = Client(path)
assert client.open()
began = time.monotonic()
client.send(*define({xml}))
client.sock.sendall(struct.pack(">7I", 28, 0x6B656570, 1, 1, 2, 0, 0))
first = client.next()
ponged = time.monotonic() - began
reply = first if first.serial == 5 else client.next()
client.sock.close()
result = [reply.serial, reply.status, p.error_message(reply) if reply.status else "", ponged]
"""
    main = service.pid
    through = run_as(host, "good", program)
    host.run("virsh", "undefine", "heavy", check=False)
    direct = run_as(host, "good", program, UPSTREAM)
    assert isinstance(through, list)
    assert isinstance(direct, list)
    assert through[:3] == direct[:3]
    assert through[3] < direct[3] + 3
    assert service.pid == main
    host.run("virsh", "undefine", "heavy", check=False)


def test_memory_of_workers(host: BootedHost, service: LimitedService) -> None:
    """Many calls at once that need much memory end workers, not connections and not the main process."""
    program = """
clients = [Client(path) for _ in range(8)]
assert all(client.open() for client in clients)
for client in clients:
    for serial in range(5, 8):
        client.send(*define(MANY.replace(b"heavy", b"heavy%d" % serial), serial))
result = [sorted(client.next().serial for _ in range(3)) for client in clients]
"""
    main = service.pid
    assert run_as(host, "good", program) == [[5, 6, 7]] * 8
    assert service.pid == main
    assert host.run("systemctl", "show", "-p", "NRestarts", f"{GATEWAY}.service").stdout == "NRestarts=0\n"
    host.sh("for n in 5 6 7; do virsh -q undefine heavy$n; done", check=False)


IDLE = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
clients = []
for _ in range(int(sys.argv[2])):
    clients.append(Client(path))
    assert sys.argv[3] != "open" or clients[-1].open()
print(json.dumps(len(clients)), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("user", "count", "opens"),
    [
        ("root", 4990, "open"),  # libvirtd serves 5,000 (max_clients), and this test has some of its own
        ("evil", 5000, "wait"),
    ],
)
def test_idle_clients(
    host: BootedHost, service: LimitedService, user: str, count: int, opens: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many clients as libvirt serves need less than 128 MiB in all, and everybody else is still served.

    The unit's limit of 25% is 1 GiB on a host that has 4 GiB.
    """
    wait_until(lambda: service.memory < 120 << 20)
    before, main = service.memory, service.pid
    argv = ["prlimit", "--nofile=8192:8192", *python_of(user, IDLE, CLIENTS), str(count), opens]
    with popen(host, *argv) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == f"{count}\n".encode()
        memory = service.memory - before
        assert host.virsh("uri").returncode == 0
        assert seconds(host, "good", CLIENTS) < 30
        process.stdin.close()
    with capsys.disabled():
        print(f"\n{count} clients of {user}: {memory >> 20} MiB")
    assert service.pid == main
    assert memory < 128 << 20
