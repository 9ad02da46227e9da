"""papr-hook adopt on a real libvirt: definitions read, laid out, defined and restored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from papr_hook.commands import _adoption
from papr_hook.virt.connection import GuestState
from tests.harness.libvirt_host import Host
from tests.helpers.cli import one_line, papr_hook

NIC = (
    "<interface type='user'><mac address='52:54:00:00:00:0{0}'/><model type='virtio'/>"
    "<address type='pci' domain='0' bus='0' slot='{0}' function='0'/></interface>"
)
GRAPHICS = "<graphics type='vnc' passwd='secret'/>"


def crowded(name: str) -> str:
    """A guest with two NICs on vPHB 0 and a VNC password."""
    return (
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory><os><type arch='ppc64' "
        f"machine='pseries'>hvm</type></os><devices>{NIC.format(1)}{NIC.format(2)}{GRAPHICS}</devices></domain>"
    )


@pytest.fixture
def guests(host: Host) -> Iterator[Callable[..., list[str]]]:
    """Define guests that do not comply, and undefine them again."""
    defined: list[str] = []

    def define(*names: str) -> list[str]:
        for name in names:
            host.define(crowded(name))
            defined.append(name)
        return [read(host, name) for name in names]

    yield define
    for name in defined:
        host.virsh("undefine", name, check=False)


def read(host: Host, name: str) -> str:
    """Return the domain XML that libvirt keeps, passwords included."""
    return host.dumpxml(name, "--inactive", "--security-info")


def test_adopt_and_undo(host: Host, guests: Callable[..., list[str]], tmp_path: Path) -> None:
    """Guests are laid out once, with their passwords, and restored to what libvirt had before."""
    before = guests("one", "two")
    adopt = ("adopt", "-c", host.uri, "--backups", str(tmp_path / "backups"))
    assert papr_hook("check", "-c", host.uri, "one").status == 1
    first = papr_hook(*adopt, "--yes")
    assert first.status == 0, first.err
    assert "one: updated (effective at next start)" in first.out
    assert papr_hook("check", "-c", host.uri, "one").status == 0
    assert "secret" in read(host, "one")
    again = papr_hook(*adopt, "--yes", "one", "two")
    assert (again.status, again.out) == (
        0,
        "one: complies\ntwo: complies\n0 to change, 2 compliant, 0 skipped, 0 failed\n",
    )
    undone = papr_hook(*adopt, "--undo", "--yes")
    assert undone.status == 0, undone.err
    assert [read(host, "one"), read(host, "two")] == before
    gone = papr_hook("show", "-c", host.uri, "nobody")
    assert gone.status == 2
    assert one_line(gone.err)


def test_a_daemon_that_restarts(
    make_host: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every guest is laid out although the daemon is restarted in the middle."""
    host = make_host("restarted")
    names = [f"guest{number}" for number in range(6)]
    for name in names:
        host.define(crowded(name))
    restart = threading.Thread(target=host.restart)
    plan = _adoption.Host.plan

    def plan_and_restart(self: _adoption.Host, state: GuestState, before: bytes) -> _adoption.GuestPlan:
        if restart.ident is None:
            restart.start()
        return plan(self, state, before)

    monkeypatch.setattr(_adoption.Host, "plan", plan_and_restart)
    ran = papr_hook("adopt", "-c", host.uri, "--backups", str(tmp_path / "backups"), "--yes")
    restart.join()
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count(": updated") == len(names)
    assert all(papr_hook("check", "-c", host.uri, name).status == 0 for name in names)


def test_undo_after_an_edit(host: Host, guests: Callable[..., list[str]], tmp_path: Path) -> None:
    """A guest that a client edited since stays, unless --force is given."""
    before = guests("edited")
    adopt = ("adopt", "-c", host.uri, "--backups", str(tmp_path / "backups"), "--yes")
    papr_hook(*adopt, "edited")
    edited = read(host, "edited").replace("<vcpu", "<title>edited</title><vcpu", 1)
    host.define(edited)
    refused = papr_hook(*adopt, "--undo", "edited")
    assert refused.status == 1
    assert "papr-hook: edited: changed since it was adopted" in refused.err
    assert "<title>edited</title>" in read(host, "edited")
    assert papr_hook(*adopt, "--undo", "--force", "edited").status == 0
    assert read(host, "edited") == before[0]
