"""install.sh --try on hosts that have a libvirt of their own: what it shows, and that nothing is left of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.harness.booted_host import CHECKOUT, BootedHost, started
from tests.helpers.cli import one_line
from tests.helpers.installation import HOOK, descendants, snapshot
from tests.helpers.polling import wait_until

TRY = f"{CHECKOUT}/install.sh"

SHOWN = (
    r"1 A throwaway libvirt host",
    r"fetched \d+ packages of Debian",
    r"libvirt [0-9.]+ runs, with QEMU [0-9.]+",
    r"requires a controller that accepts a pcie-root-port",
    r"Domain 'sample' started",
    r"8 devices, 1 PCI domain, 1 IOMMU group:",
    r"papr-hook [0-9.]+ is installed:",
    r"/run/libvirt/libvirt-sock gateway;",
    r"libvirtd was restarted",
    r"Domain 'second' defined",
    r"papr-hook check -c qemu:///system second complies",
    r"Domain 'second' created",
    r"papr-hook check -c qemu:///system second complies",
    r"Domain 'sample' started",
    r"└── vPHB 10 PCI domain 001d spare",
    r"001e:00:01\.0 1 4096 bytes e1000e NIC",
    r"11 host bridges says ibm,pci-config-space-type = 1",
    r"7 devices, 7 PCI domains, 7 IOMMU groups \(before: 1 and 1\)",
    r"Device attached successfully",
    r"001d:00:01\.0 10 4096 bytes e1000e NIC 52:54:00:00:00:09",
    r"Device detached successfully",
    r"papr-hook is uninstalled",
    r"processes that run from \S+: 0 ",
    r"mounts below \S+: 0 ",
    r"installed: 0 ",
    r"No such file or directory$",
)
"""What an administrator is to see, in this order."""


def left(host: BootedHost) -> list[str]:
    """What a demonstration could leave: processes, mounts, files. The host's own libvirtd ends when it is idle."""
    script = "cat /proc/self/mountinfo; ls -A /tmp /var/tmp /run; grep -aE '^(qemu|libvirtd)' /proc/[0-9]*/comm"
    return [line for line in host.sh(script, check=False).stdout.splitlines() if "systemd" not in line]


@pytest.mark.parametrize("release", ["bookworm"])
def test_demo(roots: dict[str, Path], release: str) -> None:
    """It shows all that it is there to show, fits a terminal, and leaves nothing; the host's libvirt is as it was."""
    with started(roots, release) as host:
        before, there = snapshot(host), set(left(host))
        done = host.run(TRY, "--try", timeout=600)
        assert done.stderr == ""
        rest = " ".join(done.stdout.split())
        for pattern in SHOWN:
            found = re.search(pattern, rest)
            assert found is not None, f"{pattern} is not in\n{rest}"
            rest = rest[found.end() :]
        assert [line for line in done.stdout.splitlines() if len(line) > 100] == []
        assert "\x1b" not in done.stdout
        assert snapshot(host) == before
        assert set(left(host)) <= there
        assert host.sh(f"ls {HOOK}", check=False).returncode != 0


@pytest.mark.parametrize("at", ["fetched", "libvirtd"])
def test_interrupted_demo(host: BootedHost, at: str) -> None:
    """Ctrl-C in the middle of it is one line, and leaves nothing."""
    before, there = snapshot(host), set(left(host))
    reached = {
        "fetched": "ls /var/tmp/papr-hook.*/apt/cache/archives/*.deb",
        "libvirtd": "ls /var/tmp/papr-hook.*/root/demo/demo/run/libvirt/libvirt-sock",
    }[at]
    process = subprocess.Popen(
        host.argv(TRY, "--try"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(lambda: host.sh(reached, check=False).returncode == 0, seconds=300)
    leader = next(descendants(process.pid))
    os.kill(leader, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "install.sh: interrupted; nothing is left of it\n"
    assert snapshot(host) == before
    assert set(left(host)) <= there


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        ("sed s/=debian/=haiku/ /etc/os-release >/srv/haiku; mount --bind /srv/haiku /etc/os-release", "this is haiku"),
        ("mount -t tmpfs -o size=100M none /var/tmp", "--try needs 1200 MiB in /var/tmp, which has 100"),
        ("mount -t tmpfs -o size=2M none /srv/full; export TMPDIR=/srv/full", "--try needs 1200 MiB in /srv/full"),
        ("export TMPDIR=/srv/nowhere", "/srv/nowhere"),
        ("mount --bind /dev/null /etc/apt/sources.list", "could not fetch the packages: E: Unable to locate package"),
        ("as='setpriv --bounding-set -net_admin'", "--try needs mount, process and network namespaces"),
        ("as='setpriv --reuid 65534 --regid 65534 --clear-groups'", "--try needs root"),
    ],
    ids=["not Debian", "full disk", "full directory", "no directory", "no packages", "no namespaces", "not root"],
)
def test_refusal(host: BootedHost, prepare: str, says: str) -> None:
    """Where it cannot be, it is one line that says why, and nothing is left."""
    before, there = snapshot(host), set(left(host))
    host.write("/srv/refused", f"as=\nmkdir -p /srv/full\n{prepare}\nexec $as {TRY} --try\n")
    done = host.run("unshare", "-m", "sh", "-e", "/srv/refused", check=False)
    assert done.returncode == 1
    assert one_line(done.stderr), done.stderr
    assert says in done.stderr
    assert snapshot(host) == before
    assert set(left(host)) <= there
