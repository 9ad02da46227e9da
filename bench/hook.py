"""Measure the hook beside programs that do as little as a hook can."""

from __future__ import annotations

import compileall
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.gateway import guest, lay_out
from bench.table import Row, compare
from papr_hook.virt.hook_files import ENVIRONMENT
from tests.helpers.paths import GOLDEN, HOOK, PROJECT

PARSES = ["/usr/bin/python3", "-I", "-c", "import sys; from lxml import etree; etree.parse(sys.stdin.buffer)"]


@contextmanager
def _installed() -> Iterator[Path]:
    """Give a hook that is installed as the packages do it, and beside it one that is cat.

    The hook notes its calls in a file system in memory, as libvirt's run directory is one.
    """
    with (
        tempfile.TemporaryDirectory(prefix="papr-") as name,
        tempfile.TemporaryDirectory(prefix="papr-", dir="/dev/shm") as run_dir,
    ):
        directory = Path(name)
        shutil.copytree(PROJECT / "papr_hook", directory / "papr_hook", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(directory / "papr_hook", quiet=1)
        text = HOOK.read_text().replace("lib=/usr/share/papr-hook\n", f"lib={directory}\n")
        text = text.replace("run=/run/libvirt\n", f"run={run_dir}\n")
        for name, script in (("qemu", text), ("cat", "#!/bin/sh\ncat\n")):
            (directory / name).write_text(script)
            (directory / name).chmod(0o755)
        yield directory


def _run(calls: int, argv: list[str], data: bytes) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        subprocess.run(argv, input=data, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) / calls


def measure(rounds: int, calls: int) -> list[Row]:
    """Measure the hook for a guest that complies, for one of another architecture, and where it has no say."""
    complies, other = lay_out(guest("bench", 1)), (GOLDEN / "x86-in.xml").read_bytes()
    with _installed() as directory:
        hook, cat = str(directory / "qemu"), [str(directory / "cat")]
        start, stop = [hook, "bench", "prepare", "begin", "-"], [hook, "bench", "stopped", "end", "-"]
        kinds = [
            ("hook, compliant guest", "python3 and lxml", PARSES, start, complies),
            ("hook, another architecture", "cat", cat, start, other),
            ("hook, operation without a say", "cat", cat, stop, complies),
        ]
        return [
            compare(
                name,
                beside,
                rounds,
                {"base": partial(_run, calls, base, data), "papr-hook": partial(_run, calls, ours, data)},
            )
            for name, beside, base, ours, data in kinds
        ]
