"""What a guest's agent says about hotplug."""

from __future__ import annotations

import base64
import itertools
import json

import pytest

from papr_hook.doctor.agent import judge_agent
from papr_hook.errors import LibvirtError


class Agent:
    """An agent whose shell prints some words, and ends when it is asked a second time."""

    def __init__(self, printed: str, exits: bool = True) -> None:
        self._printed = printed
        self._exits = exits
        self._asked = 0

    def __call__(self, command: str) -> str:
        call = json.loads(command)
        if call["execute"] == "guest-exec":
            assert call["arguments"]["path"] == "/bin/sh"
            return '{"return": {"pid": 7}}'
        assert call["arguments"] == {"pid": 7}
        self._asked += 1
        if self._asked < 2 or not self._exits:
            return '{"return": {"exited": false}}'
        data = base64.b64encode(self._printed.encode()).decode()
        return json.dumps({"return": {"exited": True, "exitcode": 0, "out-data": data}})


def test_a_guest_that_is_ready() -> None:
    """It has all three."""
    found = judge_agent(Agent("rtas_errd\ndrmgr\nrpaphp\nasked\n"))
    assert str(found) == (
        "note: the guest can take hotplugged devices: it has rtas_errd, drmgr, rpaphp [hotplug-ready]"
    )


def test_a_guest_without_its_daemon() -> None:
    """What is missing is named, with its package."""
    found = judge_agent(Agent("drmgr\nasked\n"))
    assert found.severity.value == "warning"
    assert "ppc64-diag" in found.text
    assert "rpaphp" in found.text
    assert "drmgr" not in found.text


def refuse(command: str) -> str:
    """Refuse a command, as an agent does that has guest-exec blocked."""
    raise LibvirtError("command guest-exec has been disabled")


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (refuse, "has been disabled"),
        (Agent(""), "shell cannot be run"),
        (Agent("asked", exits=False), "no answer within 10 s"),
        (lambda command: "no JSON", "cannot be read"),
        (lambda command: '{"return": 3}', "cannot be read"),
        (lambda command: "{}", "cannot be read"),
    ],
)
def test_an_agent_that_does_not_tell(agent: Agent, words: str) -> None:
    """That is a note, and says why."""
    ticks = itertools.count(step=6)
    found = judge_agent(agent, clock=lambda: float(next(ticks)))
    assert (found.severity.value, found.name.value) == ("note", "hotplug-unknown")
    assert words in found.text
