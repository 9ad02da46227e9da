"""The sockets on which clients arrive."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from papr_hook.gateway.activation import bind_socket, inherited_sockets, upstream_path
from tests.helpers.cli import papr_hook


def test_a_gateway_without_a_socket(tmp_path: Path) -> None:
    """Without a place to listen, or a libvirt whose socket's rights it could take, it says so and ends."""
    ran = papr_hook("gateway", "serve")
    assert (ran.status, ran.err) == (2, "papr-hook: systemd passed no sockets, and --listen names none\n")
    nowhere = tmp_path / "upstream"
    ran = papr_hook("gateway", "serve", "--listen", str(tmp_path / "sock"), "--upstream", str(nowhere))
    assert (ran.status, ran.err) == (2, f"papr-hook: {nowhere}: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_a_socket_has_the_rights_of_libvirts(tmp_path: Path) -> None:
    """It replaces what is at its path, and listens."""
    model, path = tmp_path / "model", tmp_path / "sock"
    path.write_text("old")
    with socket.socket(socket.AF_UNIX) as libvirts:
        libvirts.bind(str(model))
        model.chmod(0o620)
        with bind_socket(path, like=model), socket.socket(socket.AF_UNIX) as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o620
            client.connect(str(path))
    assert sorted(tmp_path.iterdir()) == [model, path]


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_sockets_that_are_not_for_this_process(pid: str) -> None:
    """They stay with whom systemd passed them to, and children do not see the variables."""
    environment = {"LISTEN_PID": pid, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "PATH": "x"}
    assert inherited_sockets(environment) == []
    assert environment == {"PATH": "x"}
    assert inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}) == []


def test_upstream() -> None:
    """libvirt's own socket is in a directory beside the clients'."""
    assert upstream_path(Path("/run/libvirt/libvirt-sock")) == Path("/run/libvirt/upstream/libvirt-sock")
