"""Install papr-hook onto booted hosts with install.sh, and look at the result."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.harness.booted_host import CHECKOUT, BootedHost
from tests.helpers.cli import one_line
from tests.helpers.polling import wait_until

INSTALL = f"{CHECKOUT}/install.sh"
HOOK = "/etc/libvirt/hooks/qemu"
OURS_IN_DIR = "/etc/libvirt/hooks/qemu.d/90-papr-hook"
CONF = "/etc/papr-hook.conf"
SHARE = "/usr/share/papr-hook"
CLIENTS = "/run/libvirt/libvirt-sock"
UPSTREAM = "/run/libvirt/upstream/libvirt-sock"
UNITS = "/usr/lib/systemd/system"
GATEWAY = "papr-hook-gateway@libvirtd"
ENFORCING = "mount -t tmpfs none /sys/fs; mkdir /sys/fs/selinux; echo 1 >/sys/fs/selinux/enforce"
"""Shows what a host that enforces SELinux shows, in a mount namespace of its own."""

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


def directly(
    host: BootedHost, *args: str, input: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run virsh on libvirt's own socket, past a gateway where there is one."""
    found = host.sh(f"ls {host.upstream} {host.clients} 2>/dev/null", check=False).stdout.split()
    socket = host.upstream if host.upstream in found else host.clients
    return host.run("virsh", "-q", "-c", f"qemu:///system?socket={socket}", *args, input=input, check=check)


@contextlib.contextmanager
def crowd(host: BootedHost) -> Iterator[None]:
    """Define a guest named crowd that does not comply."""
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
    """How many vPHBs the guest named crowd has."""
    return host.virsh("dumpxml", "crowd", *args).stdout.count("model='pci-root'")


def answers(host: BootedHost) -> bool:
    """Whether libvirt answers its clients."""
    return host.virsh("uri", check=False).returncode == 0


def verify(host: BootedHost) -> None:
    """Have systemd look at all units of the gateway."""
    daemon = host.daemon
    units = [f"papr-hook-{daemon}.socket", f"{host.gateway}.service", f"papr-hook-bypass@{daemon}.service"]
    assert host.run("systemd-analyze", "--man=no", "verify", *units).stderr == ""


def assert_judged(host: BootedHost) -> None:
    """A guest's start is refused where no gateway lays it out, and its second one works; the journal has both."""
    host.sh("journalctl --rotate --vacuum-time=1s -q")
    with crowd(host):
        said = directly(host, "start", "--paused", "crowd", check=False)
        assert said.returncode == 1
        assert said.stderr.count("papr-hook: guest 'crowd': not started: ") == 1, said.stderr
        wait_until(lambda: in_journal(host, "guest 'crowd': laid out for its next start"))
        directly(host, "start", "--paused", "crowd")
        assert host.virsh("domstate", "crowd").stdout.split() == ["paused"]
        assert host.virsh("dumpxml", "crowd").stdout.count("model='pci-root'") > 2
    assert in_journal(host, r"guest 'crowd': not started: .*\[not-isolated\].*start it again")


def assert_not_judged(host: BootedHost) -> None:
    """A guest's first start works."""
    with crowd(host):
        directly(host, "start", "--paused", "crowd")


@contextlib.contextmanager
def set_aside(host: BootedHost, path: str) -> Iterator[None]:
    """Put a file away, if it is there, and back again over what then is in its place."""
    host.sh(f"[ ! -e {path} ] || mv {path} {path}.aside")
    try:
        yield
    finally:
        host.sh(f"rm -f {path}; [ ! -e {path}.aside ] || mv {path}.aside {path}")


def interrupted(host: BootedHost) -> None:
    """Interrupt install.sh, as a terminal does, while it stages: a named pipe among its files holds it there."""
    before = snapshot(host)
    host.sh(f"mkfifo {CHECKOUT}/man/papr-hook-pipe.8")
    try:
        process = subprocess.Popen(host.argv(INSTALL), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: host.sh("ls /usr/share/.papr-hook.papr-new/papr-hook.conf", check=False).returncode == 0)
        for pid in list(descendants(process.pid)):
            os.kill(pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        host.sh(f"rm {CHECKOUT}/man/papr-hook-pipe.8")
    assert process.returncode == 130
    assert said == "install.sh: interrupted; nothing has changed\n"
    assert snapshot(host) == before
