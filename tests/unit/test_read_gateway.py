"""Where clients arrive on a host."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from papr_hook.doctor import read_gateway as module
from papr_hook.doctor.read_gateway import read_gateway
from papr_hook.gateway.setup.host import DAEMONS, Daemon, Host
from tests.helpers.fake_systemd import FakeHost


@pytest.fixture
def root() -> Iterator[Path]:
    """Make a host's root; its path is short, because sockets lie below it."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "run/libvirt/upstream").mkdir(parents=True)
        yield Path(name)


def test_a_host_without_libvirt(root: Path) -> None:
    """Nothing listens, and the gateway is not enabled."""
    facts = read_gateway(Host(root))
    assert not facts.is_enabled
    assert [daemon.is_there for daemon in facts.daemons] == [False] * len(DAEMONS)


def test_sockets(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their rights, and whether they listen, answer, or lead to another one."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    host = Host(root)
    with ExitStack() as stack:
        for path, mode in (("libvirt-sock", 0o600), ("upstream/libvirt-sock", 0o666)):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.bind(str(root / "run/libvirt" / path))
            os.chmod(root / "run/libvirt" / path, mode)
            one.listen()
        (root / "run/libvirt/virtqemud-sock").symlink_to("upstream/libvirt-sock")
        virtqemud, libvirtd = read_gateway(host).daemons
    assert virtqemud.clients.is_link
    assert virtqemud.clients.listens
    assert not libvirtd.clients.is_link
    assert libvirtd.upstream.listens
    assert not libvirtd.answers
    assert [f"{one.owner.mode:o}" for one in (libvirtd.clients, libvirtd.upstream) if one.owner] == ["600", "666"]


def test_the_socket_of_virtproxyd(tmp_path: Path) -> None:
    """On a host with modular daemons, libvirtd's socket is not taken for one that bypasses the gateway."""
    host = FakeHost(tmp_path, Daemon("virtqemud"))
    assert [daemon.name for daemon in read_gateway(host).daemons] == ["virtqemud", "libvirtd"]
    host.active.add("virtproxyd.socket")
    assert [daemon.name for daemon in read_gateway(host).daemons] == ["virtqemud"]
