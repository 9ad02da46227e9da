"""Arguments, errors and standard streams of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from papr_hook import __version__
from papr_hook.commands import COMMANDS
from papr_hook.config import Config
from tests.helpers.cli import one_line, papr_hook
from tests.helpers.paths import GOLDEN

PC = GOLDEN / "pc-shaped-in.xml"
LAID_OUT = GOLDEN / "pc-shaped-out.xml"


def test_version_and_help() -> None:
    """--version prints the version of the package, and --help the default of each setting."""
    assert papr_hook("--version").out == f"papr-hook {__version__}\n"
    text = " ".join(papr_hook("layout", "--help").out.split())
    assert f"else {Config().spares})" in text


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """papr-hook layout | head ends quietly."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "papr_hook", "layout", str(PC)],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_the_module_is_the_command() -> None:
    """python3 -m papr_hook prints a definition byte for byte, whatever the locale."""
    done = subprocess.run(
        [sys.executable, "-m", "papr_hook", "layout"],
        input="<domain type='kvm'><name>Zoë</name></domain>".encode("utf-16"),
        stdout=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        check=True,
    )
    assert "Zoë".encode("utf-16-le") in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_command(name: str) -> None:
    """--help lists the command, and its own --help starts with the summary as a sentence."""
    summary = COMMANDS[name]
    assert " ".join(summary.split()) in " ".join(papr_hook("--help").out.split())
    text = " ".join(papr_hook(name, "--help").out.split())
    assert f"{summary[0].upper()}{summary[1:]}." in text


def run_with(prepare: Callable[[], None], *argv: str, **streams: int) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, prepared before it starts."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run([sys.executable, "-m", "papr_hook", *argv], preexec_fn=prepare, check=False, **options)  # type: ignore[call-overload,no-any-return]


def nothing() -> None:
    """Prepare nothing."""


def test_closed_stderr_keeps_messages_out_of_the_xml() -> None:
    """With standard error closed, standard output has the XML and nothing else."""
    file = GOLDEN / "thirty-two-devices-in.xml"
    assert papr_hook("layout", str(file)).err != ""
    done = run_with(lambda: os.close(2), "layout", str(file))
    assert (done.returncode, done.stdout) == (0, (GOLDEN / "thirty-two-devices-out.xml").read_bytes())


def test_closed_stdin_is_one_line() -> None:
    """A closed standard input cannot be read."""
    done = run_with(lambda: os.close(0), "layout")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"papr-hook: <stdin>: Bad file descriptor\n"


@pytest.mark.parametrize("command", ["layout", "check", "show"])
def test_closed_stdout_is_one_line(command: str) -> None:
    """A closed standard output cannot be written; the status is 2 for check as well."""
    done = run_with(lambda: os.close(1), command, str(PC))
    assert (done.returncode, done.stderr) == (2, b"papr-hook: standard output: Bad file descriptor\n")


@pytest.mark.parametrize("command", ["layout", "check", "show"])
def test_full_stdout_is_one_line(command: str) -> None:
    """A full standard output is an error of one line; the status is 2 for check as well."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run_with(nothing, command, str(PC), stdout=full)
    finally:
        os.close(full)
    assert (done.returncode, done.stderr) == (2, b"papr-hook: standard output: No space left on device\n")


def test_closed_streams_are_not_taken_by_files(tmp_path: Path) -> None:
    """With all standard streams closed, -i writes the file and nothing into it that does not belong there."""
    file = tmp_path / "guest.xml"
    file.write_bytes((GOLDEN / "thirty-two-devices-in.xml").read_bytes())
    done = run_with(lambda: os.closerange(0, 3), "layout", "-i", str(file))
    assert done.returncode == 0
    assert file.read_bytes() == (GOLDEN / "thirty-two-devices-out.xml").read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("package", ["lxml", "rich"])
def test_a_missing_package_is_one_line(command: str, package: str, tmp_path: Path) -> None:
    """Without a package that a command needs, it exits with 2 and says which package to install."""
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name='{package}.part')\n")
    arguments = [str(PC)] if command in ("layout", "check", "show") else []
    arguments += {"attach": ["guest"], "gateway": ["serve"]}.get(command, [])
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{GOLDEN.parents[1]}"}
    needed = package == "lxml" or command == "show"
    if not needed:
        arguments = ["--help"]
    done = subprocess.run(
        [sys.executable, "-m", "papr_hook", command, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        text=True,
        check=False,
    )
    if needed:
        assert (done.returncode, done.stdout) == (2, "")
        assert one_line(done.stderr)
        assert f"install python3-{package}" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--help"], ["layout", "--help"], ["--version"]])
def test_help_to_a_full_disk_is_one_line(arguments: list[str]) -> None:
    """Help that cannot be printed is an error of one line."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run_with(nothing, *arguments, stdout=full)
    finally:
        os.close(full)
    assert (done.returncode, done.stderr) == (2, b"papr-hook: standard output: No space left on device\n")
