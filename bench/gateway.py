"""Measure the gateway beside libvirtd's own socket, and beside relays that look at nothing."""

from __future__ import annotations

import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from bench.crowd import call_by_the_clock
from bench.table import Row, compare
from bench.ways import call, connect
from papr_hook.config import Config
from papr_hook.gateway.protocol import Procedure, Reader, string, uint
from papr_hook.pipeline import analyze
from tests.harness.gateway_host import GatewayHost
from tests.helpers.raw_client import RawClient

CONNECT_GET_HOSTNAME = 59
CONNECT_LIST_ALL_DOMAINS = 273
SECRET_DEFINE_XML = 142
SECRET_SET_VALUE = 144
SECRET_EVENT_REGISTER = 380
VALUE_CHANGED = 1
SECRET = b"<secret ephemeral='yes' private='no'><usage type='volume'><volume>/bench</volume></usage></secret>"

POOL = "/var/lib/libvirt/pool"
BATCH = 100
IDLE = 100

GUEST = (
    "<domain type='qemu'><name>{}</name><uuid>6a2b0e5c-9a8f-4f0a-8b4f-{:012x}</uuid><memory>262144</memory>"
    "<os><type arch='ppc64' machine='pseries'>hvm</type></os><devices>{}<memballoon model='virtio'/></devices></domain>"
)


def guest(name: str, number: int, nics: int = 10) -> bytes:
    """Return the domain XML of a guest with some NICs and no addresses."""
    devices = "".join(
        f"<interface type='user'><mac address='52:54:00:{number % 256:02x}:{nic // 256:02x}:{nic % 256:02x}'/>"
        "<model type='virtio'/></interface>"
        for nic in range(nics)
    )
    return GUEST.format(name, number, devices).encode()


def lay_out(xml: bytes) -> bytes:
    """Return domain XML with a layout."""
    return analyze(xml, Config()).apply_layout().data


class Bench:
    """The ways to one libvirtd, and what is measured on each."""

    def __init__(self, gateway: GatewayHost, ways: dict[str, str], rounds: int) -> None:
        self.host = gateway.host
        self.ways = ways
        self.rounds = rounds
        self._pid = gateway.pid
        self._crowded = guest("bench", 1)
        self._laid_out = lay_out(self._crowded)
        self._guest = Reader(self._define("direct", self._laid_out)).domain().raw
        for name, xml in (("crowded", self._crowded), ("laid-out", self._laid_out)):
            self.host.outside(f"/run/{name}.xml").write_bytes(xml)

    def _define(self, way: str, xml: bytes) -> bytes:
        with connect(self.host.outside(self.ways[way])) as client:
            return call(client, Procedure.DOMAIN_DEFINE_XML_FLAGS, string(xml) + uint(0))

    def _row(self, name: str, measure: Callable[[str], float]) -> Row:
        return compare(name, "direct", self.rounds, {way: partial(measure, path) for way, path in self.ways.items()})

    def measure_calls(self, calls: int) -> list[Row]:
        """Measure single calls.

        Args:
            calls: Operations of one measurement.
        """
        define = Procedure.DOMAIN_DEFINE_XML_FLAGS
        laid_out, crowded = (string(xml) + uint(0) for xml in (self._laid_out, self._crowded))
        xml_desc = (Procedure.DOMAIN_GET_XML_DESC, self._guest + uint(0))
        return [
            self._row("open and close", partial(self._open_and_close, calls)),
            self._row("round trip", partial(self._calls, calls, CONNECT_GET_HOSTNAME, b"")),
            self._row("XMLDesc", partial(self._calls, calls, *xml_desc)),
            self._row("define, complies", partial(self._calls, calls, define, laid_out)),
            self._row("define, laid out", partial(self._calls, calls, define, crowded)),
            self._row("virsh list", partial(self._virsh, ["list", "--all"])),
            self._row("virsh define, complies", partial(self._virsh, ["define", "/run/laid-out.xml"])),
            self._row("virsh define, laid out", partial(self._virsh, ["define", "/run/crowded.xml"])),
        ]

    def _open_and_close(self, calls: int, path: str) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            with connect(self.host.outside(path)):
                pass
        return (time.perf_counter() - began) / calls

    def _calls(self, calls: int, procedure: int, payload: bytes, path: str) -> float:
        with connect(self.host.outside(path)) as client:
            call(client, procedure, payload)
            began = time.perf_counter()
            for _ in range(calls):
                call(client, procedure, payload)
            return (time.perf_counter() - began) / calls

    def _virsh(self, arguments: Sequence[str], path: str) -> float:
        argv = self.host.argv(["virsh", "-q", "-c", f"qemu:///system?socket={path}", *arguments])
        began = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    def measure_events(self, events: int) -> Row:
        """Measure events that come as fast as libvirt makes them: those of a secret are the cheapest ones."""
        direct = self.host.outside(self.ways["direct"])
        with connect(direct) as client:
            secret = call(client, SECRET_DEFINE_XML, string(SECRET) + uint(0))
        change = RawClient.packet(SECRET_SET_VALUE, secret + string(b"value") + uint(0))

        def measure(path: str) -> float:
            with connect(self.host.outside(path)) as listener, connect(direct) as other:
                call(listener, SECRET_EVENT_REGISTER, uint(VALUE_CHANGED) + uint(0))
                began = time.perf_counter()
                for _ in range(events // BATCH):
                    other.client.sendall(change * BATCH)
                    for _ in range(BATCH):
                        other.next()
                size = int.from_bytes(listener.client.recv(4, socket.MSG_PEEK), "big")
                wanted = size * (events // BATCH * BATCH)  # they are all of one size
                while wanted > 0:
                    wanted -= len(listener.client.recv(1 << 18))
                return time.perf_counter() - began

        return self._row(f"{events} events", measure)

    def measure_volumes(self, mebibytes: int) -> list[Row]:
        """Measure streams of a volume, with and without holes."""
        size = mebibytes << 20
        self.host.run(["mkdir", "-p", POOL])
        direct = ["virsh", "-q", "-c", f"qemu:///system?socket={self.ways['direct']}"]
        self.host.run([*direct, "pool-create-as", "p", "dir", "--target", POOL])
        self.host.run([*direct, "vol-create-as", "p", "v", str(size)])
        with open(self.host.outside(f"{POOL}/in.raw"), "wb") as file:
            for start in range(0, size, 2 << 20):  # one MiB of data, one of hole
                file.seek(start)
                file.write(b"papr" * (1 << 18))
            file.truncate(size)
        self.host.run(["cp", "--sparse=never", f"{POOL}/in.raw", f"{POOL}/full.raw"])
        kinds: list[tuple[str, str, list[str]]] = [("", "full.raw", []), (", half of it holes", "in.raw", ["--sparse"])]
        rows = []
        for kind, source, options in kinds:
            for direction, file_name in (("upload", source), ("download", "out.raw")):
                argv = [f"vol-{direction}", "v", f"{POOL}/{file_name}", "--pool", "p", *options]
                rows.append(self._row(f"{direction} {mebibytes} MiB{kind}", partial(self._virsh, argv)))
        return rows

    def measure_clients(self, clients: int, seconds: float) -> list[Row]:
        """Measure clients that each make a call a second: the median wait, and the longest one."""

        def measure(path: str) -> tuple[float, float]:
            with ExitStack() as stack:
                opened = [stack.enter_context(connect(self.host.outside(path))) for _ in range(clients)]
                waits = call_by_the_clock(opened, seconds)
            return statistics.median(waits), max(waits)

        found = [{way: measure(path) for way, path in self.ways.items()} for _ in range(self.rounds)]
        rows = []
        for index, name in enumerate(("a call a second", "the longest wait")):
            values = {way: statistics.median(one[way][index] for one in found) for way in self.ways}
            rows.append(Row(f"{clients} clients, {name}", "direct", values.pop("direct"), values))
        return rows

    def measure_list(self, guests: int, calls: int) -> Row:
        """Measure a list of all guests, which are defined already."""
        measure = partial(self._calls, calls, CONNECT_LIST_ALL_DOMAINS, uint(1) + uint(0))
        return self._row(f"listAllDomains, {guests} guests", measure)

    def idle_bytes(self) -> float:
        """Return the proportional memory of the gateway for one idle connection."""
        path = self.host.outside(self.ways["papr-hook"])
        with ExitStack() as stack:
            stack.enter_context(connect(path))
            before = self._memory()
            for _ in range(IDLE):
                stack.enter_context(connect(path))
            return (self._memory() - before) / IDLE

    def _memory(self) -> int:
        script = 'cat $(printf "/proc/%s/smaps_rollup " $(pgrep -P "$1") "$1")'
        rollups = self.host.run(["sh", "-c", script, "sh", str(self._pid)]).stdout
        return sum(int(line.split()[1]) * 1024 for line in rollups.splitlines() if line.startswith("Pss:"))
