"""hooks/qemu: it ends with success whatever it runs does, and runs no more than a call needs."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from papr_hook.config import LIBVIRT_RUN_DIR, STATE_DIR
from papr_hook.hook import decision
from tests.helpers.paths import GOLDEN, HOOK, PROJECT

NOT_COMPLIANT = (GOLDEN / "pc-shaped-in.xml").read_bytes()
OTHER = (GOLDEN / "x86-in.xml").read_bytes()
SUCCESSES = ["prepare begin", "migrate begin", "restore begin"]
UNHEARD = ["start begin", "started begin", "stopped end", "release end", "reconnect begin", "attach begin"]


@dataclass
class Script:
    """The script with programs of the test's in the place of the host's.

    path: the script. bin: the directory that it finds programs in. log: what the programs wrote.
    """

    path: Path
    bin: Path
    log: Path

    def program(self, name: str, text: str) -> None:
        """Put a shell program where the script finds it."""
        file = self.bin / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def run(self, operation: str, data: bytes = NOT_COMPLIANT) -> int:
        """Run the script as libvirt does. Return its exit status."""
        environment = {"PATH": str(self.bin), "LC_ALL": "C", "LOG": str(self.log)}
        argv = [str(self.path), "guest", *operation.split(), "-"]
        return subprocess.run(argv, input=data, env=environment, check=False, timeout=30).returncode

    @property
    def note(self) -> Path:
        """The file that has the last call."""
        return self.log.with_name(STATE_DIR) / "last-call"

    @property
    def written(self) -> list[str]:
        """What the programs wrote."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Make the script with a python3 and a logger that only note their calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cat", "mkdir", "timeout", "sleep"):
        found = next(Path(place, name) for place in ("/usr/bin", "/bin") if Path(place, name).exists())
        (folder / name).symlink_to(found)
    path = tmp_path / "qemu"
    text = HOOK.read_text().replace("lib=/usr/share/papr-hook\n", f"lib={PROJECT}\n")
    text = text.replace(f"run={LIBVIRT_RUN_DIR}\n", f"run={tmp_path}\n")
    path.write_text(re.sub("/usr/bin/python3", str(folder / "python3"), text))
    path.chmod(0o755)
    made = Script(path, folder, tmp_path / "log")
    made.program("python3", "cat >/dev/null; echo python >>$LOG")
    made.program("logger", 'echo "logger $*" >>$LOG')
    return made


def test_a_removed_package_leaves_a_hook_that_does_nothing(script: Script) -> None:
    """Without papr-hook's modules no Python is started, and nothing is logged."""
    script.path.write_text(script.path.read_text().replace(f"lib={PROJECT}\n", f"lib={script.bin}\n"))
    assert script.run("prepare begin") == 0
    assert script.written == []


@pytest.mark.parametrize("operation", SUCCESSES)
def test_python_decides(script: Script, operation: str) -> None:
    """The operations that may concern a layout are Python's."""
    assert script.run(operation) == 0
    assert script.written == ["python"]


@pytest.mark.parametrize("operation", UNHEARD)
def test_no_python_for_other_operations(script: Script, operation: str) -> None:
    """No Python is started for an operation without a layout to judge."""
    assert script.run(operation) == 0
    assert script.written == []


def test_no_python_for_other_architectures(script: Script) -> None:
    """No Python is started for a guest that names another architecture; without one, the host's counts."""
    assert script.run("prepare begin", OTHER) == 0
    assert script.written == []
    silent = OTHER.replace(b" arch='x86_64' machine='q35'", b"")
    assert silent != OTHER
    assert script.run("prepare begin", silent) == 0
    assert script.written == ["python"]


def test_refusal(script: Script) -> None:
    """The status of a refusal, and no other, is a failure."""
    script.program("python3", f"cat >/dev/null; exit {decision.REFUSE}")
    assert script.run("prepare begin") == 1
    assert script.written == []


@pytest.mark.parametrize("operation", SUCCESSES)
@pytest.mark.parametrize("python", ["exit 1", "exit 127", "kill -SEGV $$", "exit 2", None])
@pytest.mark.parametrize("logger", ['echo "logger $*" >>$LOG', "exit 1", None])
def test_broken_programs_refuse_nothing(script: Script, operation: str, python: str | None, logger: str | None) -> None:
    """Without a working python3, a logger, or either, the guest goes on."""
    for name, text in (("python3", python), ("logger", logger)):
        if text is None:
            (script.bin / name).unlink()
        else:
            script.program(name, text)
    assert script.run(operation) == 0
    if logger is not None and logger.startswith("echo"):
        assert "the hook failed or took too long; starting it unchanged" in script.written[0]


def test_no_programs_at_all(script: Script) -> None:
    """A PATH that leads nowhere refuses nothing."""
    for file in script.bin.iterdir():
        file.unlink()
    assert script.run("prepare begin") == 0


def test_time_limit(script: Script) -> None:
    """A python3 and a logger that hang hold the guest for less than ten seconds, and leave no process."""
    hang = "echo $$ >>$LOG; trap '' TERM; while :; do sleep 60; done"
    script.program("python3", hang)
    script.program("logger", hang)
    began = time.monotonic()
    assert script.run("prepare begin") == 0
    assert 8 <= time.monotonic() - began < 10
    assert len(script.written) == 2
    assert not any(is_running(pid) for pid in script.written)


def is_running(pid: str) -> bool:
    """Tell whether a process exists and was not killed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_memory_limit(script: Script) -> None:
    """Python has half a gigabyte, which the helper process may leave behind: the limit is a soft one."""
    script.program("python3", "cat >/dev/null; ulimit -S -v >>$LOG; ulimit -H -v >>$LOG")
    assert script.run("prepare begin") == 0
    assert script.written == ["524288", "unlimited"]


def test_arguments_and_pid(script: Script) -> None:
    """Python gets libvirt's arguments, the domain XML, and the process that libvirt waits for."""
    script.program("python3", 'cat >$LOG.xml; echo "$*" >>$LOG; echo $PAPR_HOOK_PID $PPID >>$LOG')
    process = subprocess.Popen(
        [str(script.path), "-t x'; y", "prepare", "begin", "-"],
        stdin=subprocess.PIPE,
        env={"PATH": str(script.bin), "LOG": str(script.log)},
    )
    process.communicate(NOT_COMPLIANT)
    assert process.returncode == 0
    entry = PROJECT / "papr_hook" / "hook" / "__main__.py"
    assert script.written[0] == f"-I -S {entry} -t x'; y prepare begin -"
    assert script.written[1].split()[0] == str(process.pid)
    assert Path(f"{script.log}.xml").read_bytes().rstrip() == NOT_COMPLIANT.rstrip()


def test_the_last_call_is_noted(script: Script) -> None:
    """papr-hook doctor finds the result, the operation and the guest; other operations leave them."""
    script.run("prepare begin")
    assert script.note.read_text() == "passed prepare guest\n"
    assert script.note.parent.stat().st_mode & 0o777 == 0o700
    script.program("python3", f"cat >/dev/null; exit {decision.REFUSE}")
    script.run("prepare begin")
    assert script.note.read_text() == "refused prepare guest\n"
    script.program("python3", "exit 2")
    script.run("restore begin")
    script.run("stopped end")
    assert script.note.read_text() == "failed restore guest\n"
    script.run("migrate begin", OTHER)
    assert script.note.read_text() == "passed migrate guest\n"


@pytest.mark.parametrize("obstacle", ["file", "directory", "link"])
def test_a_note_that_cannot_be_written_changes_nothing(script: Script, obstacle: str) -> None:
    """The answer is the same, and libvirt's client sees no message."""
    if obstacle == "file":
        script.note.parent.write_text("")
    elif obstacle == "directory":
        script.note.mkdir(parents=True)
    else:
        script.note.parent.symlink_to("/proc/self/fd/none")
    for answer, status in ((0, 0), (decision.REFUSE, 1)):
        script.program("python3", f"cat >/dev/null; exit {answer}")
        argv = [str(script.path), "guest", "prepare", "begin", "-"]
        environment = {"PATH": str(script.bin), "LOG": str(script.log)}
        done = subprocess.run(argv, input=NOT_COMPLIANT, env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")
