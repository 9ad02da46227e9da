"""What is read of the hook of a host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lxml
import pytest

from papr_hook.doctor.read_hook import read_hook
from tests.helpers.paths import HOOK, PROJECT

PYTHON = "/usr/bin/python3"
"""What the hook runs."""


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    """Make a directory of hooks with papr-hook's, which runs the modules of this checkout with this Python."""
    directory = tmp_path / "hooks"
    directory.mkdir()
    (directory / "qemu").write_text(HOOK.read_text())
    (directory / "qemu").chmod(0o755)
    edit(directory, "lib=/usr/share/papr-hook\n", f"lib={PROJECT}\n")
    edit(directory, PYTHON, sys.executable)
    return directory


def edit(hooks: Path, old: str, new: str) -> None:
    """Replace a text of the hook."""
    script = hooks / "qemu"
    assert old in script.read_text()
    script.write_text(script.read_text().replace(old, new))


def install_python(prefix: Path) -> Path:
    """Install this Python elsewhere, without any package. Return its directory of modules."""
    own = Path(os.__file__).parent
    modules = prefix / own.parent.name / own.name
    modules.mkdir(parents=True)
    for file in own.iterdir():
        if file.name not in ("site-packages", "dist-packages"):
            (modules / file.name).symlink_to(file)
    (prefix / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), prefix / "bin/python3")
    return modules


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
    edit(hooks, f"lib={PROJECT}\n", f"lib={path}\n")
    expected = f"{path}/papr_hook/hook/__main__.py" if library == "broken" else f"{path}/papr_hook does not exist"
    assert expected in read_hook(tmp_path, hooks).failure


@pytest.mark.parametrize("place", ["dist-packages", "site-packages", "only site knows it", "none"])
def test_where_the_hook_finds_lxml(tmp_path: Path, hooks: Path, place: str) -> None:
    """It is found where distributions have it, which need not be where Python's site looks, and where site looks."""
    prefix = tmp_path / "python"
    modules = install_python(prefix)
    packages = prefix / "lib/python3/dist-packages", modules / "site-packages"
    elsewhere = tmp_path / "elsewhere"
    for directory in (*packages, elsewhere):
        directory.mkdir(parents=True)
    found = {"dist-packages": packages[0], "site-packages": packages[1], "only site knows it": elsewhere}
    if place in found:
        (found[place] / "lxml").symlink_to(Path(lxml.__file__).parent)
    if place == "only site knows it":
        for directory in packages:  # site looks in one of them
            (directory / "elsewhere.pth").write_text(f"{elsewhere}\n")
    edit(hooks, sys.executable, str(prefix / "bin/python3"))
    failure = read_hook(tmp_path, hooks).failure
    assert failure == ("ModuleNotFoundError: No module named 'lxml'" if place == "none" else "")


def test_a_hook_whose_python_does_not_start(tmp_path: Path, hooks: Path) -> None:
    """One that is missing is named, and one that hangs is killed."""
    python = tmp_path / "python"
    edit(hooks, sys.executable, str(python))
    assert str(python) in read_hook(tmp_path, hooks).failure
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    edit(hooks, "KILL 8", "KILL 0.2")
    assert read_hook(tmp_path, hooks).failure == "it took too long"


def test_the_hook_has_no_call_noted_for_the_question(tmp_path: Path, hooks: Path) -> None:
    """The question of doctor is not noted as a call of libvirt."""
    edit(hooks, "run=/run/libvirt\n", f"run={tmp_path}\n")
    assert read_hook(tmp_path, hooks).last_call is None
    assert not (tmp_path / "papr-hook").exists()


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
