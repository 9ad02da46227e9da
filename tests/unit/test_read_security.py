"""What is read about SELinux and AppArmor."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from papr_hook.doctor.facts import SecurityFacts
from papr_hook.doctor.read_security import read_security
from papr_hook.gateway.setup.host import Host

APPARMOR = (
    'audit: type=1400 audit(1700000000.1:60): apparmor="DENIED" operation="open" profile="libvirtd" '
    'name="/usr/share/papr-hook/papr_hook/" pid=10 comm="python3"'
)
SELINUX = 'avc:  denied  { execute } for  pid=9 comm="rpc-worker" path="/etc/libvirt/hooks/qemu" permissive=0'
OTHER = 'audit: apparmor="DENIED" operation="open" profile="cups" name="/etc/shadow"'
LABEL = "Would relabel /etc/libvirt/hooks/qemu from a:b:c:s0 to a:b:d:s0"


class Commands:
    """Programs of a host that print some text."""

    def __init__(self, **texts: str) -> None:
        self._texts = texts

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if argv[0] not in self._texts:
            raise FileNotFoundError(argv[0])
        return subprocess.CompletedProcess(argv, 0, self._texts[argv[0]], "")


def test_a_host_without_either(tmp_path: Path) -> None:
    """Where no program can be asked, nothing is known."""
    assert read_security(Host(tmp_path, Commands())) == SecurityFacts()


def test_denials(tmp_path: Path) -> None:
    """Those that name papr-hook's files or libvirt's hooks count; without a journal the kernel's own log has them."""
    text = "\n".join((APPARMOR, OTHER, SELINUX, "papr-hook: a line"))
    for program in ("journalctl", "dmesg"):
        assert read_security(Host(tmp_path, Commands(**{program: text}))).denials == (APPARMOR, SELINUX)


def test_selinux(tmp_path: Path) -> None:
    """Its mode, its boolean, and what restorecon would change."""
    (tmp_path / "sys/fs/selinux/booleans").mkdir(parents=True)
    (tmp_path / "sys/fs/selinux/enforce").write_text("1")
    (tmp_path / "sys/fs/selinux/booleans/virt_hooks_unconfined").write_text("1 1")
    (tmp_path / "etc/libvirt/hooks").mkdir(parents=True)
    host = Host(tmp_path, Commands(journalctl="", restorecon=f"{LABEL}\nother\n"))
    assert read_security(host) == SecurityFacts("enforcing", (("virt_hooks_unconfined", True),), (LABEL,))
    (tmp_path / "sys/fs/selinux/enforce").write_text("0")
    assert read_security(Host(tmp_path, Commands())).selinux == "permissive"
