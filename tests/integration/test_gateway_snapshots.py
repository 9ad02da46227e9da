"""Snapshots through the gateway: what starts cold is laid out, what resumes memory keeps its layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from papr_hook.gateway.session import HELD_CALL_TIMEOUT
from tests.harness.gateway_host import GatewayHost
from tests.harness.guest_image import Image
from tests.helpers import hook_installation
from tests.helpers.domain_xml import file_disk
from tests.helpers.guests import complies, crowded, old_guest


@pytest.fixture
def hooked(gateway: GatewayHost) -> Iterator[GatewayHost]:
    """Put the hook behind the gateway."""
    hook_installation.install(gateway.host, record=True)
    yield gateway
    hook_installation.uninstall(gateway.host)


@pytest.fixture
def snapshotted(hooked: GatewayHost, image: Image, root: Path, disk: Path) -> Iterator[GatewayHost]:
    """Define a guest that does not comply, past the gateway, and make a snapshot of it while it is off."""
    hooked.via_daemon("define", "/dev/stdin", input=old_guest(image, root, crowded() + file_disk(disk, "vda")))
    assert hooked.via_daemon("snapshot-create-as", "g", "before").returncode == 0
    yield hooked
    hooked.host.virsh("destroy", "g", check=False)
    hooked.host.virsh("snapshot-delete", "g", "before")


@pytest.mark.parametrize(("option", "state"), [("--running", "running"), ("--paused", "paused")])
def test_a_revert_to_a_snapshot_without_memory(snapshotted: GatewayHost, option: str, state: str) -> None:
    """The guest that it starts is laid out, and nothing is refused in the middle."""
    snapshotted.host.virsh("snapshot-revert", "g", "before", option)
    assert snapshotted.host.virsh("domstate", "g").stdout.strip() == state
    assert complies(snapshotted.host.dumpxml("g"))
    assert complies(snapshotted.host.dumpxml("g", "--inactive"))
    assert all(call.endswith(" 0") for call in hook_installation.calls(snapshotted.host))


def test_a_revert_of_a_running_guest(snapshotted: GatewayHost) -> None:
    """It is stopped, laid out and started."""
    snapshotted.host.virsh("start", "--paused", "g")
    snapshotted.host.virsh("snapshot-revert", "g", "before", "--running")
    assert snapshotted.host.virsh("domstate", "g").stdout.strip() == "running"
    assert complies(snapshotted.host.dumpxml("g"))


def test_a_revert_beside_a_managed_save(snapshotted: GatewayHost) -> None:
    """libvirt wants it forced, and leaves the managed save alone then."""
    snapshotted.host.virsh("start", "--paused", "g")
    snapshotted.host.virsh("managedsave", "g")
    done = snapshotted.same_result("snapshot-revert", "g", "before", "--running")
    assert "managed saved state" in done.stderr
    snapshotted.host.virsh("snapshot-revert", "g", "before", "--paused", "--force")
    assert snapshotted.host.virsh("domstate", "g").stdout.strip() == "paused"
    snapshotted.host.virsh("destroy", "g")
    assert "Managed save:   yes" in snapshotted.host.virsh("dominfo", "g").stdout


SLOW = f"""#!/bin/sh
case " $* " in *" snapshot -a "*) echo >>/run/reverts; sleep {HELD_CALL_TIMEOUT + 2} ;; esac
exec /run/qemu-img "$@"
"""


def test_a_revert_that_takes_longer_than_a_call_is_held(snapshotted: GatewayHost) -> None:
    """libvirt reverts once, and the guest is laid out and started then."""
    host = snapshotted.host
    host.run(["cp", "/usr/bin/qemu-img", "/run/qemu-img"])
    host.write("/run/slow", SLOW)
    host.run(["sh", "-c", "chmod 755 /run/slow && mount --bind /run/slow /usr/bin/qemu-img"])
    try:
        host.virsh("snapshot-revert", "g", "before", "--running")
    finally:
        host.run(["umount", "/usr/bin/qemu-img"])
    assert host.read("/run/reverts") == "\n"
    assert host.virsh("domstate", "g").stdout.strip() == "running"
    assert complies(host.dumpxml("g"))


def test_a_revert_without_a_start(snapshotted: GatewayHost) -> None:
    """It brings back the domain XML of the snapshot, which the next start lays out."""
    snapshotted.host.virsh("snapshot-revert", "g", "before")
    assert not complies(snapshotted.host.dumpxml("g", "--inactive"))
    snapshotted.host.virsh("start", "--paused", "g")
    assert complies(snapshotted.host.dumpxml("g"))


def test_a_revert_that_libvirt_refuses(snapshotted: GatewayHost) -> None:
    """The client gets libvirt's own error."""
    done = snapshotted.same_result("snapshot-revert", "g", "never", "--running")
    assert done.returncode != 0


def test_a_revert_to_memory(hooked: GatewayHost, image: Image, root: Path, disk: Path) -> None:
    """A snapshot with memory comes back with the layout that the memory was made with."""
    hook_installation.uninstall(hooked.host)
    hooked.via_daemon("define", "/dev/stdin", input=old_guest(image, root, crowded() + file_disk(disk, "vda")))
    hooked.via_daemon("start", "--paused", "g")
    hook_installation.install(hooked.host, record=True)
    hooked.host.virsh("snapshot-create-as", "g", "memory")
    hooked.host.virsh("destroy", "g")
    hooked.host.virsh("snapshot-revert", "g", "memory", "--running")
    assert hooked.host.virsh("domstate", "g").stdout.strip() == "running"
    assert not complies(hooked.host.dumpxml("g"))
    hooked.host.virsh("destroy", "g")
    hooked.host.virsh("snapshot-delete", "g", "memory")
