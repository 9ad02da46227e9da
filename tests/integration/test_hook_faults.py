"""The hook on a host where something is broken, and in the middle of a revert: nothing is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.libvirt_host import Host
from tests.helpers import hook_installation
from tests.helpers.cli import papr_hook
from tests.helpers.domain_xml import at, file_disk
from tests.helpers.guests import crowded


@pytest.fixture
def paused(make_host: Callable[[str], Host], disk: Path) -> Host:
    """Start a host with a guest that does not comply and boots nothing, paused before the hook came."""
    host = make_host("paused")
    host.define(
        "<domain type='qemu'><name>old</name><memory unit='MiB'>256</memory>"
        "<os><type arch='ppc64le' machine='pseries'>hvm</type></os><features><htm state='off'/></features>"
        f"<devices>{crowded()}{file_disk(disk, 'vda', at(0, 3))}</devices></domain>"
    )
    host.virsh("start", "--paused", "old")
    return host


@pytest.mark.parametrize("fault", ["rm -rf {0}; touch {0}", "mkdir -p {0}; mount -t tmpfs -o ro none {0}"])
def test_marks_that_cannot_be_written(paused: Host, root: Path, fault: str) -> None:
    """A restore goes on while /run/libvirt/papr-hook is a file or read-only, and so does a start."""
    paused.virsh("save", "old", str(root / "saved"))
    hook_installation.install(paused)
    paused.run(["sh", "-c", fault.format("/run/libvirt/papr-hook")])
    paused.virsh("restore", "--paused", str(root / "saved"))
    paused.virsh("destroy", "old")
    paused.virsh("start", "--paused", "old")


def test_revert_that_starts_without_memory(paused: Host) -> None:
    """A revert to a snapshot of a guest that was off, which starts the guest, is not refused in the middle."""
    paused.virsh("destroy", "old")
    paused.virsh("snapshot-create-as", "old", "off")
    hook_installation.install(paused)
    paused.virsh("snapshot-revert", "old", "off", "--paused")
    assert paused.virsh("domstate", "old").stdout.strip() == "paused"
    paused.virsh("destroy", "old")
    assert papr_hook("adopt", "--yes", "-c", paused.uri).status == 0
    paused.virsh("snapshot-revert", "old", "off", "--paused")
    assert paused.virsh("domstate", "old").stdout.strip() == "paused"


@pytest.mark.parametrize("broken", ["python3", "logger", "timeout"])
def test_broken_programs(paused: Host, broken: str) -> None:
    """A host whose python3, logger or timeout does not work starts its guests."""
    paused.virsh("destroy", "old")
    hook_installation.install(paused, project=Path("/nowhere"))
    paused.run(["sh", "-c", f"mount --bind /bin/false $(readlink -f $(command -v {broken}))"])
    paused.virsh("start", "--paused", "old")
