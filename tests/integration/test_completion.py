"""The completion of guests on a host: those of the connection that papr-hook uses by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.libvirt_host import Host
from tests.helpers.client_sequences import domain_xml
from tests.helpers.paths import PROJECT

GUESTS = {
    "bash": 'source "$1"; uri=; _papr_hook_guests',
    "zsh": """
        compdef() { : }
        _wanted() { print -l $guests }
        typeset -A opt_args
        source "$1"
        _papr-hook-guests
    """,
}
"""What prints the guests that a shell offers."""


@pytest.fixture
def guest(host: Host) -> Iterator[str]:
    """Define a guest."""
    host.define(domain_xml("small", []))
    yield "small"
    host.virsh("undefine", "small")


@pytest.mark.parametrize(("shell", "file"), [("bash", "papr-hook"), ("zsh", "_papr-hook")])
def test_guests_of_the_host(host: Host, guest: str, shell: str, file: str) -> None:
    """Without -c they are the system's, or those of the setting uri."""
    argv = [shell, "-c", GUESTS[shell], shell, str(PROJECT / "completion" / file)]
    assert host.run(argv).stdout.split() == [guest]
    host.write("/etc/papr-hook.conf", "[papr-hook]\nspares = 2\nuri = test:///default\n")
    assert host.run(argv).stdout.split() == ["test"]
    host.run(["rm", "/etc/papr-hook.conf"])
