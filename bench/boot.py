"""Measure what vPHBs cost a guest: the firmware's time and the kernel's, by the number of spares."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from papr_hook.config import Config
from papr_hook.pipeline import analyze
from tests.harness import guest_image
from tests.harness.guest import domain, wait_for
from tests.harness.libvirt_host import Host
from tests.helpers.domain_xml import nic
from tests.helpers.polling import wait_until

SPARES = (0, 4, 27)
FIRMWARE_ENDS = b"Preparing to boot Linux"
"""The kernel's first words, right after SLOF has started it (arch/powerpc/kernel/prom_init.c)."""


@dataclass(frozen=True)
class Boot:
    """The CPU time of a guest's QEMU in seconds: until the kernel starts, and until the guest's /init has come up."""

    spares: int
    firmware: float
    whole: float


def measure(image: guest_image.Image, rounds: int, spares: Sequence[int] = SPARES) -> list[Boot]:
    """Boot a guest of two devices again and again; return the medians, in the order of spares."""
    with tempfile.TemporaryDirectory(prefix="papr-") as directory, Host(Path(directory), "boot") as host:
        taken = [[_boot(host, image, Path(directory), number) for number in spares] for _ in range(rounds)]
    return [
        Boot(number, median(one.firmware for one in boots), median(one.whole for one in boots))
        for number, boots in zip(spares, zip(*taken))
    ]


def _boot(host: Host, image: guest_image.Image, directory: Path, spares: int) -> Boot:
    console = directory / "boot.console"
    xml = analyze(domain("boot", image, console, nic(1)).encode(), Config(spares=spares)).apply_layout().data
    host.virsh("create", "/dev/stdin", input=xml.decode())
    try:
        pid = host.outside("/run/libvirt/qemu/boot.pid").read_text().strip()
        wait_until(lambda: console.exists() and FIRMWARE_ENDS in console.read_bytes())
        firmware = _cpu_seconds(host, pid)
        wait_for(console, timeout=300)
        return Boot(spares, firmware, _cpu_seconds(host, pid))
    finally:
        host.virsh("destroy", "boot")
        console.unlink()


def _cpu_seconds(host: Host, pid: str) -> float:
    """Return the CPU time of a process of a host."""
    fields = host.run(["cat", f"/proc/{pid}/stat"]).stdout.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def render(boots: Sequence[Boot]) -> str:
    """Return a table."""
    lines = [f"{'spares':>8}{'firmware, s':>14}{'boot, s':>10}"]
    lines += [f"{boot.spares:8}{boot.firmware:14.2f}{boot.whole:10.2f}" for boot in boots]
    return "\n".join(lines)


def main() -> None:
    """Build a guest image if there is none, boot it, and print the table."""
    with tempfile.TemporaryDirectory(prefix="papr-") as directory:
        image = guest_image.build(Path(os.environ.get("PAPR_TEST_CACHE", directory)).resolve())
        print(render(measure(image, 5)))


if __name__ == "__main__":
    main()
