"""Who is connected to a Unix socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from papr_hook.doctor.facts import Process
from papr_hook.doctor.unix_peers import find_clients, is_gateway

CLIENT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(flush=True); input()"


def test_clients_of_a_socket() -> None:
    """A client is found as long as it is connected, by its process; those of other sockets are not."""
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as server:
        path = f"{name}/sock"
        server.bind(path)
        server.listen()
        assert list(find_clients(path)) == []
        argv = [sys.executable, "-c", CLIENT, path]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            client.stdout.readline()
            accepted, _ = server.accept()
            with accepted:
                assert [process.pid for process in find_clients(path)] == [client.pid]
                assert list(find_clients(f"{name}/other")) == []
                client.communicate(b"\n")
                assert list(find_clients(path)) == []


def test_the_gateway_is_known_by_its_command_line(tmp_path: Path) -> None:
    """Another program, or a process that has ended, is not the gateway."""
    for pid, words in ((1, "python3\0/usr/bin/papr-hook\0gateway\0serve\0"), (2, "virsh\0list\0")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_text(words)
    assert [is_gateway(Process(pid, ""), tmp_path) for pid in (1, 2, 3)] == [True, False, False]
    assert not is_gateway(Process(os.getpid(), ""))
