"""papr-hook show --watch: a guest that changes while it is drawn."""

from __future__ import annotations

import pytest

from papr_hook.commands import show
from tests.helpers.cli import papr_hook
from tests.helpers.domain_xml import at, domain_xml, nic
from tests.helpers.fake_connection import FakeDaemon


def test_watch_draws_each_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """--watch draws the guest at first and after each change, and ends with an error when the guest is gone."""
    daemon = FakeDaemon()
    guest = daemon.add("web", domain_xml(nic(1, at(0))))
    reads: list[str] = []

    def change(uuid: str) -> None:
        reads.append(uuid)
        if len(reads) == 3:
            guest.xml = guest.xml.replace(b"</devices>", nic(2, at(3)).encode() + b"</devices>")
        if len(reads) == 5:
            daemon.guests.clear()

    daemon.before_read = change
    monkeypatch.setattr(show, "connect", daemon.connect)
    monkeypatch.setattr(show, "POLL_SECONDS", 0.0)
    ran = papr_hook("show", "--watch", "-c", "test:///elsewhere", "web")
    assert daemon.uris == ["test:///elsewhere"]
    assert ran.out.count("web  5 vPHBs") == 2
    assert ran.out.count("<interface> 52:54:00:00:00:01") == 2
    assert ran.out.count("<interface> 52:54:00:00:00:02") == 1
    assert "\x1b" not in ran.out
    assert (ran.status, ran.err) == (2, "papr-hook: could not read guest 'web': no such domain\n")


def test_watch_needs_a_guest() -> None:
    """Standard input cannot be watched, and --watch cannot be combined with --json or --svg."""
    assert papr_hook("show", "--watch").err == "papr-hook: --watch needs the name of a guest\n"
    assert papr_hook("show", "--watch", "--json", "web").status == 2
