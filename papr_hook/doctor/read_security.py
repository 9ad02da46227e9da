"""Read what SELinux and AppArmor say about papr-hook on this host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from ..config import LIBVIRT_RUN_DIR, STATE_DIR
from ..gateway.setup.host import Host
from .facts import SecurityFacts

PATHS: Final = (
    "/etc/libvirt/hooks",
    "/etc/papr-hook.conf",
    "/usr/bin/papr-hook",
    "/usr/share/papr-hook",
    str(LIBVIRT_RUN_DIR / STATE_DIR),
)
"""What the gateway and the hook start from, read and write."""

_BOOLEANS: Final = ("virt_hooks_unconfined",)
"""Of selinux-policy's virt module: whether libvirt's hooks run without SELinux's limits."""
_SELINUX: Final = "/sys/fs/selinux"
_KERNEL_LOG: Final = ("journalctl", "-q", "-b", "--no-pager", "-o", "cat", "_TRANSPORT=kernel", "+", "_TRANSPORT=audit")
_RELABELS: Final = ("Would relabel", "restorecon reset")
"""How restorecon's lines begin, in policycoreutils since 2.6 and before."""
_DENIED: Final = ('apparmor="DENIED"', "avc:  denied")
_OURS: Final = ("papr", "libvirt/hooks")


def read_security(host: Host) -> SecurityFacts:
    """Return the facts about SELinux and AppArmor."""
    denials = tuple(line.strip() for line in _read_log(host) if _is_denial(line))
    enforce = _read(host, f"{_SELINUX}/enforce")
    if enforce is None:
        return SecurityFacts(denials=denials)
    values = ((name, _read(host, f"{_SELINUX}/booleans/{name}")) for name in _BOOLEANS)
    existing = [path for path in PATHS if host.path(path).exists()]
    relabels = _run(host, ("restorecon", "-n", "-v", "-R", *existing)) if existing else None
    return SecurityFacts(
        "enforcing" if enforce == "1" else "permissive",
        tuple((name, value.startswith("1")) for name, value in values if value is not None),
        tuple(line.strip() for line in relabels or () if line.startswith(_RELABELS)),
        denials,
    )


def _is_denial(line: str) -> bool:
    return any(mark in line for mark in _DENIED) and any(name in line for name in _OURS)


def _read_log(host: Host) -> Iterator[str]:
    """Yield the lines of the kernel's log since boot; nothing if it cannot be read."""
    lines = _run(host, _KERNEL_LOG)
    yield from lines if lines is not None else _run(host, ("dmesg",)) or ()


def _run(host: Host, argv: Sequence[str]) -> list[str] | None:
    """Return the lines that a command prints, or None if there is no such command."""
    try:
        return host.run(argv).stdout.splitlines()
    except OSError:
        return None


def _read(host: Host, path: str) -> str | None:
    with contextlib.suppress(OSError):
        return host.path(path).read_text(encoding="ascii").strip()
    return None
