"""A memory limit for a service of a booted host, and what the service uses.

A container gets no controllers on a machine whose controllers are those of cgroups version 1, so the limit is set from
outside there: the service's processes join a cgroup that the test makes.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from tests.harness.booted_host import BootedHost

VERSION_1 = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "cpuacct")


class LimitedService:
    """A context manager in which a running service has a memory limit."""

    def __init__(self, host: BootedHost, unit: str, limit: int) -> None:
        self._host = host
        self._unit = unit
        self._limit = limit
        own = f"papr-{host.name}-{unit.partition('@')[0].partition('.')[0]}-{os.getpid()}"
        self._directories = {name: self._own(name) / own for name in CONTROLLERS}
        self._version_1 = (VERSION_1 / "memory").is_dir()

    def __enter__(self) -> LimitedService:
        if not self._version_1:
            self._host.run("systemctl", "set-property", "--runtime", self._unit, f"MemoryMax={self._limit}")
            return self
        for directory in self._directories.values():
            directory.mkdir()
            for pid in self._outer_pids():
                (directory / "cgroup.procs").write_text(pid)
        (self._directories["memory"] / "memory.limit_in_bytes").write_text(str(self._limit))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._version_1:
            for directory in self._directories.values():
                for pid in (directory / "cgroup.procs").read_text().split():
                    (directory.parent / "cgroup.procs").write_text(pid)
                directory.rmdir()

    @property
    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes, those that have ended too."""
        if self._version_1:
            return int((self._directories["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
        return int(self._property("CPUUsageNSec")) / 1e9

    @property
    def memory(self) -> int:
        """Return the bytes that are charged to it."""
        if self._version_1:
            return int((self._directories["memory"] / "memory.usage_in_bytes").read_text())
        return int(self._property("MemoryCurrent"))

    @property
    def pid(self) -> int:
        """Return its main process, as the host sees it."""
        return int(self._property("MainPID"))

    def _property(self, name: str) -> str:
        return self._host.run("systemctl", "show", "--value", "-p", name, self._unit).stdout.strip()

    def _outer_pids(self) -> list[str]:
        """Return its processes as this machine sees them."""
        found = [path for path in self._host.cgroup.rglob("cgroup.procs") if path.parent.name == self._unit]
        return [pid for path in found for pid in path.read_text().split()]

    @staticmethod
    def _own(controller: str) -> Path:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        paths = [line.split(":", 2)[2] for line in lines if controller in line.split(":", 2)[1].split(",")]
        return VERSION_1 / controller / paths[0].lstrip("/") if paths else VERSION_1
