"""Hosts where /run is full or read-only, and users who have a libvirt of their own: nothing is refused or lost."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.harness.booted_host import BootedHost
from tests.helpers.installation import CROWDED, directly, in_journal, install

RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"

FAULTS = {
    "full": (
        "mount -o remount,size=$(($(df --output=used -k /run | tail -1) + 64))k /run; cat /dev/zero >/run/fill",
        "rm /run/fill; mount -o remount,size=256m /run",
    ),
    "read-only": ("mount --rbind /run /run; mount -o remount,bind,ro /run", "umount -l /run"),
}
"""What breaks /run, and what mends it."""


@pytest.fixture(scope="module", autouse=True)
def gated(host: BootedHost) -> BootedHost:
    """Install hook and gateway, and have the hook say who calls it."""
    install(host)
    host.write("/etc/libvirt/hooks/qemu.d/10-note", '#!/bin/sh\necho "$(id -un) $1 $2" >>/srv/called\n', 0o755)
    host.sh("touch /srv/called; chmod 666 /srv/called; systemctl restart libvirtd")
    return host


def named(name: str) -> str:
    """Return the domain XML of a guest that does not comply."""
    return CROWDED.replace("crowd", name)


@pytest.fixture
def guests(gated: BootedHost) -> Iterator[None]:
    """Start one guest that complies, define another one, and a third that does not comply."""
    for name in ("runs", "placed"):
        gated.virsh("define", "/dev/stdin", input=named(name))
    gated.virsh("start", "--paused", "runs")
    directly(gated, "define", "/dev/stdin", input=CROWDED)
    yield
    for name in ("runs", "placed", "crowd", "new"):
        gated.sh(f"virsh -q destroy {name}; virsh -q undefine {name}", check=False)


def outcome(done: subprocess.CompletedProcess[str], name: str) -> tuple[int, str]:
    """Return what a client of libvirt is told, whatever the guest's name, number and QEMU command line."""
    return done.returncode, re.sub(r"\(.*\)|[0-9]+", "", done.stderr.replace(name, "NAME"))


@pytest.mark.usefixtures("guests")
@pytest.mark.parametrize("fault", FAULTS)
def test_run_that_cannot_be_written(gated: BootedHost, fault: str) -> None:
    """Whatever libvirt can do there, it does for its clients behind the gateway, too, and guests are laid out."""
    breaks, mends = FAULTS[fault]
    gated.sh(breaks, check=False)
    try:
        assert gated.sh("echo 1 >/run/probe", check=False).returncode != 0
        assert gated.virsh("define", "/dev/stdin", input=named("new")).stderr == ""
        start = directly(gated, "start", "--paused", "placed", check=False)
        assert outcome(gated.virsh("start", "--paused", "crowd", check=False), "crowd") == outcome(start, "placed")
        address = "<address type='pci' domain='0' bus='3' slot='1'/></rng>"
        device = RNG.replace("</rng>", address)
        attach = directly(gated, "attach-device", "runs", "/dev/stdin", "--live", input=device, check=False)
        through = gated.virsh("attach-device", "runs", "/dev/stdin", "--live", input=RNG, check=False)
        assert outcome(through, "runs") == outcome(attach, "runs")
    finally:
        gated.sh(mends)
    for name in ("new", "crowd"):
        assert gated.virsh("dumpxml", "--inactive", name).stdout.count("model='pci-root'") == 6
    assert gated.virsh("domstate", "runs").stdout.split() == ["paused"]
    gated.sh("virsh -q start --paused crowd || virsh -q domstate crowd | grep -q paused")


def test_a_users_own_guests(gated: BootedHost) -> None:
    """libvirt runs the host's hook for them, as the user, and the hook lets starts and restores go on."""
    gated.sh("useradd own && mkdir /srv/own && chown own /srv/own")
    gated.write("/srv/own/crowd.xml", CROWDED)
    script = """
    set -e
    virsh -q define /srv/own/crowd.xml
    virsh -q start --paused crowd
    virsh -q dumpxml crowd
    virsh -q save crowd /srv/own/saved
    virsh -q restore --paused /srv/own/saved
    virsh -q domstate crowd
    virsh -q destroy crowd
    virsh -q undefine crowd
    """
    user = ["setpriv", "--reuid", "own", "--regid", "own", "--init-groups", "env", "HOME=/srv/own"]
    user += ["XDG_RUNTIME_DIR=/srv/own", "LIBVIRT_DEFAULT_URI=qemu:///session"]
    done = gated.run(*user, "sh", "-c", script)
    assert done.stderr == ""
    assert done.stdout.count("model='pci-root'") == 1
    assert "paused" in done.stdout.splitlines()
    called = gated.sh("grep -c '^own crowd prepare$' /srv/called").stdout
    assert called == "2\n"
    assert not in_journal(gated, "guest 'crowd': not started")
