"""papr-hook adopt on a libvirt that tests make."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.commands import _adoption
from tests.helpers.adopt import Adopt
from tests.helpers.cli import Ran, papr_hook
from tests.helpers.fake_connection import FakeDaemon


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    """A libvirt that adopt connects to."""
    made = FakeDaemon()
    monkeypatch.setattr(_adoption, "connect", made.connect)
    monkeypatch.setattr(_adoption, "RECONNECT_SECONDS", 0.0)
    return made


@pytest.fixture
def adopt(libvirt: FakeDaemon, tmp_path: Path) -> Adopt:
    """The command, with its backups below tmp_path."""

    def run(*arguments: str) -> Ran:
        return papr_hook("adopt", "--backups", str(tmp_path / "backups"), *arguments)

    return run
