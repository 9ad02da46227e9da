"""Run commands in a virtual machine by its QEMU guest agent (QEMU docs/interop/qemu-ga-ref)."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 60.0
"""How long an agent may take to answer a new connection, while the machine runs."""

ANSWER_SECONDS = 120.0
"""How long an agent may take to answer a request. It does not wait for commands."""

POLL_SECONDS = 0.1

ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
)


class AgentError(Exception):
    """The agent does not answer, refuses a request, or a command does not end."""


class Agent:
    """The connection to an agent, which is made when it is needed."""

    def __init__(self, path: Path) -> None:
        """Prepare a connection.

        Args:
            path: The socket that QEMU connects to the agent.
        """
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = b""

    def close(self) -> None:
        """Drop the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def answers(self, timeout: float) -> bool:
        """Return whether the agent answers in time."""
        try:
            self._connect(timeout)
        except AgentError:
            return False
        return True

    def execute(self, argv: list[str], data: bytes, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a command as root.

        Args:
            argv: The command and its arguments.
            data: Its standard input.
            timeout: Seconds after which it is killed.

        Returns:
            Its status and output.

        Raises:
            AgentError: The command does not end in time, or the agent fails.
        """
        deadline = time.monotonic() + timeout
        # The command is the leader of a process group.
        group = self._spawn("/usr/bin/env", ["-C", "/root", "setsid", *argv], data)
        while not (state := self._ask("guest-exec-status", {"pid": group}))["exited"]:
            if time.monotonic() > deadline:
                self._spawn("/usr/bin/kill", ["-KILL", "--", f"-{group}"])
                raise AgentError(f"not ended in {timeout:.0f} s")
            time.sleep(POLL_SECONDS)
        out, err = (base64.b64decode(state.get(name, "")).decode(errors="replace") for name in ("out-data", "err-data"))
        return subprocess.CompletedProcess(argv, state.get("exitcode", -state.get("signal", 0)), out, err)

    def _spawn(self, path: str, argv: list[str], data: bytes = b"") -> int:
        """Start a program. Return its process ID."""
        arguments = {
            "path": path,
            "arg": argv,
            "env": list(ENVIRONMENT),
            "input-data": base64.b64encode(data).decode(),
            "capture-output": True,
        }
        return int(self._ask("guest-exec", arguments)["pid"])

    def _connect(self, timeout: float) -> socket.socket:
        """Connect, and drop what an earlier connection left unread (guest-sync)."""
        if self._socket is not None:
            return self._socket
        line, self._buffer = socket.socket(socket.AF_UNIX), b""
        line.settimeout(timeout)
        try:
            line.connect(str(self._path))
            number = secrets.randbits(32)
            line.sendall(_request("guest-sync", {"id": number}))
            while json.loads(self._line(line)).get("return") != number:
                pass
        except (OSError, ValueError) as error:
            line.close()
            raise AgentError(f"the guest agent does not answer: {error}") from None
        self._socket = line
        return line

    def _ask(self, command: str, arguments: dict[str, Any]) -> Any:
        """Return the agent's answer to a request."""
        line = self._connect(CONNECT_SECONDS)
        line.settimeout(ANSWER_SECONDS)
        try:
            line.sendall(_request(command, arguments))
            answer = json.loads(self._line(line))
        except (OSError, ValueError) as error:
            # The answer would be taken for that of the next request.
            self.close()
            raise AgentError(f"the guest agent does not answer {command}: {error}") from None
        if "error" in answer:
            raise AgentError(f"the guest agent refuses {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def _line(self, line: socket.socket) -> bytes:
        """Return the next line of the agent's answers."""
        while b"\n" not in self._buffer:
            data = line.recv(65536)
            if not data:
                raise OSError("the connection is closed")
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\n")
        return text


def _request(command: str, arguments: dict[str, Any]) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
