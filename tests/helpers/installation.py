"""Install papr-hook onto booted hosts with install.sh, and look at the result."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.harness.booted_host import CHECKOUT, BootedHost
from tests.helpers.cli import one_line

INSTALL = f"{CHECKOUT}/install.sh"
HOOK = "/etc/libvirt/hooks/qemu"
OURS_IN_DIR = "/etc/libvirt/hooks/qemu.d/90-papr-hook"
CONF = "/etc/papr-hook.conf"
SHARE = "/usr/share/papr-hook"
CLIENTS = "/run/libvirt/libvirt-sock"
UPSTREAM = "/run/libvirt/upstream/libvirt-sock"
UNITS = "/usr/lib/systemd/system"
GATEWAY = "papr-hook-gateway@libvirtd"

CROWDED = """\
<domain type='qemu'>
  <name>crowd</name>
  <memory unit='MiB'>256</memory>
  <os><type arch='ppc64' machine='pseries'>hvm</type></os>
  <features><htm state='off'/></features>
  <devices>
    <controller type='usb' index='0' model='none'/>
    <controller type='pci' index='0' model='pci-root'/>
    <memballoon model='virtio'/>
    <watchdog model='i6300esb'/>
  </devices>
</domain>
"""
"""Two devices on one vPHB: the least that does not comply."""

SNAPSHOT = r"""
find /etc /usr /var/lib/libvirt -xdev -not -name '*.pyc' -not -name __pycache__ -not -path '/etc/libvirt/qemu*' \
    -not -path '/var/lib/libvirt/*/*' -printf '%p %y %m %u %l ' \( -type f -printf '%s' -o -true \) -printf '\n' | sort
find /etc /usr/bin /usr/lib/systemd/system /usr/share/papr-hook /usr/share/man/man[158] -xdev -type f \
    -not -name '*.pyc' -not -path '/etc/libvirt/qemu*' -exec sha256sum {} + 2>/dev/null | sort -k 2
"""


def snapshot(host: BootedHost) -> list[str]:
    """All of a host's files that an installation could touch, with their modes and contents."""
    return host.sh(SNAPSHOT).stdout.splitlines()


def install(host: BootedHost, *args: str) -> str:
    """Run install.sh; what it said."""
    return host.run(INSTALL, *args).stdout


def refused(host: BootedHost, prepare: str = "", *args: str) -> str:
    """Run install.sh where it refuses: it says one line, which this returns, and leaves the host as it was.

    prepare: what to do before, in a mount namespace that only this sees; as=COMMAND has that run install.sh.
    """
    before = snapshot(host)
    host.write("/srv/refused", f"as=\n{prepare}\nexec $as {INSTALL} {' '.join(args)} >/srv/refused-out\n")
    done = host.run("unshare", "-m", "sh", "-e", "/srv/refused", check=False)
    assert done.returncode == 1, done
    assert one_line(done.stderr), done.stderr
    assert done.stderr.startswith("install.sh: ")
    assert snapshot(host) == before
    return done.stderr


def directly(host: BootedHost, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run virsh on libvirt's own socket, past a gateway where there is one."""
    found = host.sh(f"ls {UPSTREAM} {CLIENTS} 2>/dev/null", check=False).stdout.split()
    socket = UPSTREAM if UPSTREAM in found else CLIENTS
    return host.run("virsh", "-q", "-c", f"qemu:///system?socket={socket}", *args, check=check)


@contextlib.contextmanager
def crowd(host: BootedHost) -> Iterator[None]:
    """A guest «crowd» that does not comply."""
    host.write("/srv/crowd.xml", CROWDED)
    directly(host, "define", "/srv/crowd.xml")
    try:
        yield
    finally:
        host.virsh("destroy", "crowd", check=False)
        host.virsh("undefine", "crowd")


def in_journal(host: BootedHost, pattern: str) -> bool:
    """Whether papr-hook said something, once the journal's daemon has read it."""
    text = host.sh("journalctl --sync; journalctl -q -t papr-hook -o cat").stdout
    return re.search(pattern, text) is not None


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they did."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from descendants(int(child))


def ours(files: list[str]) -> list[str]:
    """The files in a snapshot that are papr-hook's, or where it may put them."""
    return [line for line in files if re.search("papr[-_]hook|libvirt/hooks/.", line)]


def pci_roots(host: BootedHost, *args: str) -> int:
    """How many vPHBs the guest «crowd» has."""
    return host.virsh("dumpxml", "crowd", *args).stdout.count("model='pci-root'")


def answers(host: BootedHost) -> bool:
    """Whether libvirt answers its clients."""
    return host.virsh("uri", check=False).returncode == 0


def verify(host: BootedHost, daemon: str) -> None:
    """Have systemd look at all units of a daemon's gateway."""
    units = [f"papr-hook-{daemon}.socket", f"papr-hook-gateway@{daemon}.service", f"papr-hook-bypass@{daemon}.service"]
    assert host.run("systemd-analyze", "--man=no", "verify", *units).stderr == ""
