"""The ways to one libvirtd: its own socket, the gateway, and relays that look at nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from papr_hook.gateway.protocol import error_message
from tests.harness.gateway_host import CLIENTS, UPSTREAM, GatewayHost
from tests.harness.libvirt_host import Host
from tests.helpers.polling import wait_until
from tests.helpers.raw_client import RawClient

PROXYD = "/lib/systemd/systemd-socket-proxyd"
CONNECTIONS = 1000
"""Connections that systemd-socket-proxyd takes; it has 256 without this."""


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
        raise RuntimeError(f"procedure {procedure}: {error_message(reply)}")
    return reply.payload


@contextmanager
def _relays(gateway: GatewayHost) -> Iterator[dict[str, str]]:
    """Start the relays that this machine has, and give each with its socket, after direct and papr-hook."""
    host = gateway.host
    ways = {"direct": UPSTREAM, "papr-hook": CLIENTS}
    commands = {
        "socat": f"socat UNIX-LISTEN:/run/socat,fork,backlog={CONNECTIONS} UNIX-CONNECT:{UPSTREAM}",
        "proxyd": f"systemd-socket-activate -l /run/proxyd {PROXYD} --connections-max={CONNECTIONS} {UPSTREAM}",
    }
    with ExitStack() as stack:
        for name, command in commands.items():
            if shutil.which(command.split()[0]):
                script = f"echo $$ >/run/{name}.pid; exec {command}"
                process = subprocess.Popen(host.argv(["sh", "-c", script]), stderr=subprocess.DEVNULL)
                stack.callback(process.wait)
                stack.callback(host.run, ["sh", "-c", f"kill $(cat /run/{name}.pid)"], check=False)
                ways[name] = f"/run/{name}"
                wait_until(host.outside(ways[name]).exists)
        yield ways


@contextmanager
def host_with_ways() -> Iterator[tuple[GatewayHost, dict[str, str]]]:
    """Start a host with a gateway, and give the socket of each way inside of it."""
    with tempfile.TemporaryDirectory(prefix="papr-") as directory, Host(Path(directory), "bench") as host:
        gateway = GatewayHost(host)
        gateway.start()
        try:
            with _relays(gateway) as ways:
                yield gateway, ways
        finally:
            gateway.stop()
