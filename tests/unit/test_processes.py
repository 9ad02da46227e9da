"""What each process of the gateway does when it starts."""

from __future__ import annotations

import os
from pathlib import Path

from papr_hook.gateway.processes import close_other_fds, name_process


def test_a_process_keeps_only_its_descriptors() -> None:
    """The standard streams and those that it needs."""
    kept, writer = os.pipe()
    other = os.open(os.devnull, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        close_other_fds({writer})
        left = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        os.write(writer, b"1" if other not in left and kept not in left else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(kept, 1) == b"1"
    for number in (kept, writer, other):
        os.close(number)


def test_ps_shows_what_a_process_is() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        name_process("papr-test")
        os.write(writer, Path("/proc/self/comm").read_bytes())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 64) == b"papr-test\n"
    os.close(reader)
    os.close(writer)
