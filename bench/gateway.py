"""Measure the gateway beside libvirtd's own socket, and beside relays that look at nothing.

All of them stand in front of one libvirtd, and every round takes each in turn, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from papr_hook.config import Config
from papr_hook.gateway.protocol import Procedure, Reader, string, uint
from papr_hook.pipeline import analyze
from tests.harness.gateway_host import CLIENTS, UPSTREAM, GatewayHost
from tests.harness.libvirt_host import Host
from tests.helpers.polling import wait_until
from tests.helpers.raw_client import RawClient

CONNECT_GET_HOSTNAME = 59
PROXYD = "/lib/systemd/systemd-socket-proxyd"
IDLE = 100

GUEST = (
    "<domain type='qemu'><name>bench</name><uuid>6a2b0e5c-9a8f-4f0a-8b4f-0123456789cd</uuid><memory>262144</memory>"
    "<os><type arch='ppc64' machine='pseries'>hvm</type></os><devices>{}<memballoon model='virtio'/></devices></domain>"
)
DEVICES = "".join(
    f"<interface type='user'><mac address='52:54:00:00:01:{number:02x}'/><model type='virtio'/></interface>"
    for number in range(10)
)


@contextmanager
def connect(path: Path) -> Iterator[RawClient]:
    """Open a connection to libvirt through a socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        client = RawClient(sock)
        client.open()
        yield client


def call(client: RawClient, procedure: int, payload: bytes = b"") -> bytes:
    """Make a call, and return the payload of its reply."""
    client.client.sendall(RawClient.packet(procedure, payload))
    reply = client.next()
    if reply.status != 0:
        raise RuntimeError(f"procedure {procedure} failed")
    return reply.payload


class Bench:
    """The ways to one libvirtd, and what is measured on each."""

    def __init__(self, gateway: GatewayHost, ways: dict[str, Path]) -> None:
        self.gateway = gateway
        self.ways = ways
        xml = GUEST.format(DEVICES).encode()
        self._crowded = string(xml) + uint(0)
        self._laid_out = string(analyze(xml, Config()).apply_layout().data) + uint(0)
        with connect(ways["direct"]) as client:
            self._guest = Reader(call(client, Procedure.DOMAIN_DEFINE_XML_FLAGS, self._laid_out)).domain().raw

    def measure(self, rounds: int, calls: int) -> dict[str, dict[str, float]]:
        """Return the median seconds of each measurement, by its name and by the way.

        Args:
            rounds: How often each measurement is taken on each way.
            calls: Operations of one measurement.
        """
        steps: dict[str, Callable[[Path, int], float]] = {
            "open and close": self._open_and_close,
            "round trip": lambda path, n: self._calls(path, n, CONNECT_GET_HOSTNAME, b""),
            "XMLDesc": lambda path, n: self._calls(path, n, Procedure.DOMAIN_GET_XML_DESC, self._guest + uint(0)),
            "define, complies": lambda path, n: self._calls(path, n, Procedure.DOMAIN_DEFINE_XML_FLAGS, self._laid_out),
            "define, laid out": lambda path, n: self._calls(path, n, Procedure.DOMAIN_DEFINE_XML_FLAGS, self._crowded),
        }
        table = {}
        for name, step in steps.items():
            taken: dict[str, list[float]] = {way: [] for way in self.ways}
            for _ in range(rounds):
                for way, path in self.ways.items():
                    taken[way].append(step(path, calls))
            table[name] = {way: statistics.median(values) for way, values in taken.items()}
        return table

    def _open_and_close(self, path: Path, calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            with connect(path):
                pass
        return (time.perf_counter() - began) / calls

    def _calls(self, path: Path, calls: int, procedure: int, payload: bytes) -> float:
        with connect(path) as client:
            call(client, procedure, payload)
            began = time.perf_counter()
            for _ in range(calls):
                call(client, procedure, payload)
            return (time.perf_counter() - began) / calls

    def idle_bytes(self) -> float:
        """Return the proportional memory of the gateway for one idle connection."""
        with ExitStack() as stack:
            stack.enter_context(connect(self.ways["gateway"]))
            before = self._memory()
            for _ in range(IDLE):
                stack.enter_context(connect(self.ways["gateway"]))
            return (self._memory() - before) / IDLE

    def _memory(self) -> int:
        script = 'cat $(printf "/proc/%s/smaps_rollup " $(pgrep -P "$1") "$1")'
        rollups = self.gateway.host.run(["sh", "-c", script, "sh", str(self.gateway.pid)]).stdout
        return sum(int(line.split()[1]) * 1024 for line in rollups.splitlines() if line.startswith("Pss:"))


@contextmanager
def relays(gateway: GatewayHost) -> Iterator[dict[str, Path]]:
    """Start the relays that this machine has, and give each with its socket, after direct and gateway."""
    host = gateway.host
    ways = {"direct": host.outside(UPSTREAM), "gateway": host.outside(CLIENTS)}
    commands = {
        "socat": f"socat UNIX-LISTEN:/run/socat,fork UNIX-CONNECT:{UPSTREAM}",
        "proxyd": f"systemd-socket-activate -l /run/proxyd {PROXYD} {UPSTREAM}",
    }
    with ExitStack() as stack:
        for name, command in commands.items():
            if shutil.which(command.split()[0]):
                script = f"echo $$ >/run/{name}.pid; exec {command}"
                process = subprocess.Popen(host.argv(["sh", "-c", script]), stderr=subprocess.DEVNULL)
                stack.callback(process.wait)
                stack.callback(host.run, ["sh", "-c", f"kill $(cat /run/{name}.pid)"], check=False)
                ways[name] = host.outside(f"/run/{name}")
                wait_until(ways[name].exists)
        yield ways


def run(rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Start a host, and return what measure() and idle_bytes() find on it."""
    with tempfile.TemporaryDirectory(prefix="papr-") as directory, Host(Path(directory), "bench") as host:
        gateway = GatewayHost(host)
        gateway.start()
        try:
            with relays(gateway) as ways:
                bench = Bench(gateway, ways)
                return {**bench.measure(rounds, calls), "idle connection": {"gateway": bench.idle_bytes()}}
        finally:
            gateway.stop()


def render(table: dict[str, dict[str, float]]) -> str:
    """Return a table: milliseconds of the direct connection, and how many times as long the others take."""
    ways = list(table["round trip"])
    lines = ["".join((f"{'':18}", f"{'direct, ms':>12}", *(f"{way:>10}" for way in ways[1:])))]
    for name, values in table.items():
        if "direct" in values:
            ratios = (f"{values[way] / values['direct']:10.2f}" for way in ways[1:])
            lines.append("".join((f"{name:18}", f"{values['direct'] * 1000:12.3f}", *ratios)))
        else:
            lines.append(f"{name:18}{'':12}{values['gateway'] / 1024:6.0f} KiB")
    return "\n".join(lines)


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured (default: 15)")
    parser.add_argument("--calls", type=int, default=40, help="operations of one measurement (default: 40)")
    parser.add_argument("--json", action="store_true", help="print seconds and bytes as JSON")
    options = parser.parse_args()
    table = run(options.rounds, options.calls)
    print(json.dumps(table, indent=2) if options.json else render(table))


if __name__ == "__main__":
    main()
