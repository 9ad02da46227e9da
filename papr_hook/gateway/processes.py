"""What the gateway's processes do to themselves after fork(2)."""

from __future__ import annotations

import contextlib
import os
import resource
import syslog
from collections.abc import Collection
from enum import IntEnum

MAX_FDS = 65_536
"""File descriptors of one process, enough for as many clients as libvirt serves (max_clients in its libvirtd.conf)."""


class OomScore(IntEnum):
    """How readily the kernel kills a process when memory runs out (oom_score_adj in proc(5)).

    A worker goes first: it costs one call its layout. A relay costs its user the connections. The main process keeps
    what the unit gives it, so that it goes last.
    """

    RELAY = 500
    WORKER = 1000


def set_oom_score(score: OomScore) -> None:
    """Raise this process's OOM score. Where /proc cannot be written, it keeps its own."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(int(score)))


def name_process(name: str) -> None:
    """Have ps(1) and top(1) show what this process is. Where /proc cannot be written, it keeps its name."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)


def close_other_fds(keep: Collection[int]) -> None:
    """Close all file descriptors but some and the three standard ones.

    A process does this right after fork(2), and never returns to code that owns one of the others.
    """
    # Otherwise the C library would write the next line to whatever gets the number of its closed descriptor.
    syslog.closelog()
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number > 2 and number not in keep:
            with contextlib.suppress(OSError):  # the directory's own is closed already
                os.close(number)


def raise_fd_limit() -> None:
    """Allow as many file descriptors as the hard limit does: a relay has two for each client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FDS if hard == resource.RLIM_INFINITY else min(hard, MAX_FDS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
