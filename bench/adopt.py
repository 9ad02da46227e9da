"""Measure papr-hook adopt beside virsh define of the same guests, by one client."""

from __future__ import annotations

import subprocess
import time

from bench.gateway import guest
from bench.table import Row, alternate
from tests.harness.gateway_host import PYTHON
from tests.harness.libvirt_host import Host
from tests.helpers.paths import PROJECT


def measure(host: Host, rounds: int, guests: int) -> Row:
    """Define guests without a layout, and adopt them, on libvirtd's own socket."""
    for number in range(guests):
        host.outside(f"/run/guest{number}.xml").write_bytes(guest(f"adopted{number}", 5000 + number))
    script = "".join(f"define /run/guest{number}.xml\n" for number in range(guests)).encode()
    adopt = ["env", f"PYTHONPATH={PROJECT}", PYTHON, "-m", "papr_hook", "adopt", "-c", host.daemon_uri, "--yes"]

    def run(argv: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run(host.argv(argv), input=script, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    ways = {
        "virsh define": lambda: run(["virsh", "-q", "-c", host.daemon_uri]),
        "papr-hook": lambda: run([*adopt, "--backups", "/run/backups"]),
    }
    found = alternate(rounds, ways)
    return Row(f"adopt of {guests} guests", "virsh define", found.pop("virsh define"), found)
