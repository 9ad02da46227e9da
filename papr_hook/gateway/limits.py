"""The limits of a worker, which the kernel enforces whatever runs in it."""

from __future__ import annotations

import math
import resource
import signal
import time

CPU_SECONDS = 5
"""CPU time of one rewrite (RLIMIT_CPU). A guest of 31 devices takes some milliseconds."""

WALL_SECONDS = 20
"""Lifetime of a worker that has a call. A call waits 15 s at most, for the lock and for libvirt's answers."""

MEMORY_BYTES = 256 * 1024 * 1024
"""Address space of a worker (RLIMIT_AS), of which an idle one has about a third."""

STAY_SECONDS = 10
"""Age of a worker at which it takes no other call."""

STAY_BYTES = 64 * 1024 * 1024
"""Resident memory of a worker, now or before, at which it takes no other call. An idle one has about a third."""

LIFETIME = STAY_SECONDS + 2 * WALL_SECONDS
"""Seconds after which no worker can have a call: the last one comes before the alarm of the one before."""


class WorkerLimits:
    """Limits this process, irrevocably, and gives each call its part."""

    def __init__(self) -> None:
        """Set the limits.

        The signals keep their default action, so that the kernel ends the process. The hard limit of CPU time is that
        of two calls: a process that ignores the signal of the soft one gets no further.
        """
        self._since = time.monotonic()
        for number in (signal.SIGALRM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        self._max_cpu = 2 * CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, self._max_cpu))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
            resource.setrlimit(kind, (0, 0))
        self.begin_call()

    def begin_call(self) -> None:
        """Give a call its time, counted from now. The kernel counts the CPU time of the whole process."""
        signal.alarm(WALL_SECONDS)
        soft = min(math.ceil(time.process_time()) + CPU_SECONDS, self._max_cpu)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, self._max_cpu))

    def allow_another(self) -> bool:
        """Return whether a call after this one has all its time and memory."""
        return (
            time.monotonic() - self._since < STAY_SECONDS
            and time.process_time() <= CPU_SECONDS - 1
            and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < STAY_BYTES
        )
