"""What is read of the hook of a host."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from papr_hook.doctor import read_hook as module
from papr_hook.doctor.read_hook import read_hook
from tests.helpers.paths import HOOK, PROJECT


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory of hooks with papr-hook's, which runs the modules of this checkout."""
    monkeypatch.setattr(module, "PYTHON", sys.executable)
    directory = tmp_path / "hooks"
    directory.mkdir()
    (directory / "qemu").write_text(HOOK.read_text().replace("lib=/usr/share/papr-hook\n", f"lib={PROJECT}\n"))
    (directory / "qemu").chmod(0o755)
    return directory


def note(run_dir: Path, text: str) -> None:
    """Write the last call as the hook does."""
    (run_dir / "papr-hook").mkdir(exist_ok=True)
    (run_dir / "papr-hook/last-call").write_text(text)


def test_a_hook_that_was_not_called(tmp_path: Path, hooks: Path) -> None:
    """Its modules can be loaded; no guest runs, and no call is noted."""
    facts = read_hook(tmp_path, hooks)
    assert [(file.path, file.is_ours) for file in facts.files] == [(hooks / "qemu", True)]
    assert (facts.failure, facts.last_call, facts.last_start) == ("", None, None)


@pytest.mark.parametrize("library", ["/nowhere", "broken"])
def test_a_hook_without_its_modules(tmp_path: Path, hooks: Path, library: str) -> None:
    """The directory that is missing is named, or Python's own error."""
    path = tmp_path / library
    if library == "broken":
        (path / "papr_hook").mkdir(parents=True)
    script = hooks / "qemu"
    script.write_text(script.read_text().replace(f"lib={PROJECT}\n", f"lib={path}\n"))
    expected = "No module named 'papr_hook.hook'" if library == "broken" else f"{path}/papr_hook does not exist"
    assert expected in read_hook(tmp_path, hooks).failure


def test_the_last_call(tmp_path: Path, hooks: Path) -> None:
    """A guest's name may have spaces; the rest of an older, longer line does not count."""
    note(tmp_path, "refused prepare my guest\nlonger\n")
    os.utime(tmp_path / "papr-hook/last-call", (1000, 1000))
    call = read_hook(tmp_path, hooks).last_call
    assert call is not None
    assert (call.at, call.result, call.operation, call.guest) == (1000, "refused", "prepare", "my guest")


@pytest.mark.parametrize("text", ["", "half"])
def test_a_call_that_is_being_noted(tmp_path: Path, hooks: Path, text: str) -> None:
    """Its time is known, its result is not."""
    note(tmp_path, text)
    call = read_hook(tmp_path, hooks).last_call
    assert call is not None
    assert (call.result, call.guest) == ("", "")


def test_the_guest_that_started_last(tmp_path: Path, hooks: Path) -> None:
    """A process ID of a guest that has ended, that is none, or that is the daemon's own does not count."""
    (tmp_path / "qemu").mkdir()
    before = time.time()
    with subprocess.Popen(["sleep", "60"]) as process, subprocess.Popen(["sleep", "60"]) as daemon:
        try:
            for name, text in (("web", str(process.pid)), ("gone", "999999999"), ("odd", "?")):
                (tmp_path / "qemu" / f"{name}.pid").write_text(text)
                (tmp_path / "qemu" / f"{name}.xml").write_text("")
            (tmp_path / "qemu/driver.pid").write_text(str(daemon.pid))
            start = read_hook(tmp_path, hooks).last_start
        finally:
            process.kill()
            daemon.kill()
    assert start is not None
    assert start.guest == "web"
    assert abs(start.at - before) < 60
