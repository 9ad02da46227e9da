"""The hook on its own: what it answers, what it prints, and what it does not pay for. No libvirt is needed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from pathlib import Path

import pytest

from papr_hook.hook import decision, migration_marks, redefine
from tests.helpers.cli import Ran, one_line
from tests.helpers.paths import GOLDEN, HOOK, INVALID, PROJECT

CROWDED = (GOLDEN / "pc-shaped-in.xml").read_bytes()
LAID_OUT = (GOLDEN / "pc-shaped-out.xml").read_bytes()

OPERATIONS = [
    "prepare begin", "start begin", "started begin", "stopped end", "release end", "reconnect begin",
    "migrate begin", "restore begin", "attach begin", "prepare end", "frobnicate begin",
]  # fmt: skip


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's files: a configuration that says where the others are. Returns their directory."""
    conf = tmp_path / "papr-hook.conf"
    conf.write_text(
        f"[papr-hook]\nuri = test:///default\ndomain_dir = {tmp_path}/qemu\n"
        f"snapshot_dir = {tmp_path}/snapshot\nlibvirt_run_dir = {tmp_path}/run\nsysfs = {tmp_path}/sys\n"
    )
    monkeypatch.setattr("papr_hook.config.CONF", conf)
    return tmp_path


def call(operation: str, data: bytes, guest: str = "pc-shaped") -> Ran:
    """Call the hook as libvirt does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err):
        status = decision.main([guest, *operation.split(), "-"], io.BytesIO(data), out)
    return Ran(status, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_only_prepare_refuses_and_only_prepare_prints(host: Path, operation: str) -> None:
    """Whatever libvirt asks, only the start of a guest that does not comply is refused."""
    ran = call(operation, CROWDED)
    if operation == "prepare begin":
        assert ran.status == decision.REFUSE
        assert ran.out.encode() == LAID_OUT
        assert one_line(ran.err)
        assert ran.err.startswith("papr-hook: guest 'pc-shaped': not started: <disk> vda shares vPHB 0")
    else:
        assert ran == Ran(0, "", "")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("bad", sorted(folder.name for folder in INVALID.iterdir()))
def test_bad_input_hinders_nothing(host: Path, operation: str, bad: str) -> None:
    """What libvirt would never say is let through, with a line at prepare."""
    ran = call(operation, (INVALID / bad / "input.xml").read_bytes())
    if bad == "too-many-endpoints" and operation == "prepare begin":
        assert ran.status == decision.REFUSE
        assert "it cannot be laid out, 32 host endpoints need 32 vPHBs" in ran.err
    else:
        assert (ran.status, ran.out) == (0, "")
    if operation == "prepare begin":
        assert one_line(ran.err)


def test_what_complies_starts_in_silence(host: Path) -> None:
    """Nothing is printed when nothing changes."""
    assert call("prepare begin", LAID_OUT) == Ran(0, "", "")


@pytest.mark.parametrize("name", ["x86", "powernv", "keep"])
def test_others_start_in_silence(host: Path, name: str) -> None:
    """Another machine's guest, and one that is to be kept, start."""
    assert call("prepare begin", (GOLDEN / f"{name}-in.xml").read_bytes()) == Ran(0, "", "")


def test_too_few_spares_never_refuse(host: Path) -> None:
    """A guest that used up a spare starts; the printed layout has it topped up."""
    ran = call("prepare begin", (GOLDEN / "spare-used-up-in.xml").read_bytes())
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.encode() == (GOLDEN / "spare-used-up-out.xml").read_bytes()


@pytest.mark.parametrize("operation", ["migrate begin", "restore begin"])
def test_an_arrival_is_let_through_once(host: Path, operation: str) -> None:
    """The prepare after a migrate or a restore is that guest's, and the next one is a cold start."""
    call(operation, CROWDED)
    assert call("prepare begin", CROWDED, "another").status == decision.REFUSE
    arrival = call("prepare begin", CROWDED)
    assert arrival.status == 0
    assert "arrives with the state of that layout" in arrival.err
    assert call("prepare begin", CROWDED).status == decision.REFUSE


def test_an_arrival_that_never_came_is_forgotten(host: Path) -> None:
    """After an offline migration no prepare follows: minutes later, a start is a cold one."""
    call("migrate begin", CROWDED)
    note = host / "run/papr-hook/incoming-pc-shaped"
    old = note.stat().st_mtime - migration_marks.LASTS - 1
    os.utime(note, (old, old))
    assert call("prepare begin", CROWDED).status == decision.REFUSE
    assert not note.exists()


def test_a_state_that_libvirt_wrote_a_cgroup_into(host: Path) -> None:
    """XML that ran, of a guest whose definition did not: a saved state, whatever called for it."""
    (host / "qemu").mkdir()
    (host / "qemu/pc-shaped.xml").write_bytes(CROWDED)
    ran = CROWDED.replace(b"<os>", b"<resource><partition>/machine</partition></resource><os>")
    back = call("prepare begin", ran)
    assert back.status == 0
    assert "comes back from a saved state" in back.err


def snapshot(state: str, definition: bytes) -> str:
    return f"<domainsnapshot><name>s</name><state>{state}</state>{definition.decode()}</domainsnapshot>"


@pytest.mark.parametrize(
    ("state", "definition", "status"),
    [
        ("running", CROWDED, 0),
        ("paused", CROWDED, 0),
        ("shutoff", CROWDED, decision.REFUSE),
        ("disk-snapshot", CROWDED, decision.REFUSE),
        ("running", LAID_OUT, decision.REFUSE),
        ("running", b"<broken/>", decision.REFUSE),
    ],
)
def test_a_memory_snapshot_of_that_layout(host: Path, state: str, definition: bytes, status: int) -> None:
    """A start that may be a revert to a snapshot with memory is let through, no other."""
    folder = host / "snapshot/pc-shaped"
    folder.mkdir(parents=True)
    (folder / "s.xml").write_text(snapshot(state, definition))
    (folder / "t.xml").write_text("<not XML")
    assert call("prepare begin", CROWDED).status == status


def test_transient_and_defined_guests_are_told_what_to_do(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest from a file is told of the file; one that libvirt keeps is laid out, or told of adopt."""
    assert "'papr-hook layout -i FILE'" in call("prepare begin", CROWDED).err
    (host / "qemu").mkdir()
    (host / "qemu/pc-shaped.xml").write_bytes(CROWDED)
    monkeypatch.setattr(redefine, "define_later", lambda *arguments: False)
    assert "'papr-hook adopt pc-shaped'" in call("prepare begin", CROWDED).err
    monkeypatch.setattr(redefine, "define_later", lambda *arguments: arguments[0] == LAID_OUT)
    assert "is being laid out, so start it again" in call("prepare begin", CROWDED).err


def test_warn(host: Path) -> None:
    """on_noncompliant_start = warn says the same and lets the guest start."""
    with (host / "papr-hook.conf").open("a") as conf:
        conf.write("on_noncompliant_start = warn\n")
    ran = call("prepare begin", CROWDED)
    assert ran.status == 0
    assert "<disk> vda shares vPHB 0" in ran.err


def test_a_broken_conf_lets_it_start(host: Path) -> None:
    """A configuration that cannot be read refuses nobody."""
    (host / "papr-hook.conf").write_text("[papr-hook]\non_noncompliant_start = never\n")
    ran = call("prepare begin", CROWDED)
    assert (ran.status, ran.out) == (0, "")
    assert one_line(ran.err)
    assert "line 2: on_noncompliant_start = 'never' is not refuse or warn" in ran.err


def test_a_bug_lets_it_start(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised inside, the guest goes on, and one line says what it was."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("papr_hook.pipeline.analyze", broken)
    ran = call("prepare begin", CROWDED)
    assert ran.status == 0
    assert ran.err == "papr-hook: guest 'pc-shaped': unexpected RuntimeError: boom; the guest goes on as it is\n"


@pytest.mark.parametrize("arguments", [[], ["guest"], ["guest", "prepare"]])
def test_too_few_arguments(arguments: list[str]) -> None:
    """A call that libvirt never makes is let through."""
    assert decision.main(arguments, io.BytesIO(CROWDED), io.StringIO()) == 0


def run_script(tmp_path: Path, operation: str, data: bytes, status: int = 0) -> tuple[int, bool]:
    """Run hooks/qemu with a Python that only tells that it ran; its status, and whether it ran."""
    mark = tmp_path / "python-ran"
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\ncat >/dev/null\ntouch {mark}\nexit {status}\n")
    python.chmod(0o755)
    script = tmp_path / "qemu"
    script.write_text(re.sub("/usr/bin/python3", str(python), HOOK.read_text()))
    script.chmod(0o755)
    done = subprocess.run([script, "guest", *operation.split(), "-"], input=data, check=False)
    return done.returncode, mark.exists()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_script_starts_python_for_what_matters_only(tmp_path: Path, operation: str) -> None:
    """No Python for an operation that the hook has no say in."""
    matters = operation in ("prepare begin", "migrate begin", "restore begin")
    assert run_script(tmp_path, operation, CROWDED) == (0, matters)


def test_script_starts_no_python_for_other_guests(tmp_path: Path) -> None:
    """No Python for a guest of another architecture."""
    x86 = (GOLDEN / "x86-in.xml").read_bytes()
    assert run_script(tmp_path, "prepare begin", x86) == (0, False)
    silent = x86.replace(b" arch='x86_64' machine='q35'", b"")
    assert run_script(tmp_path, "prepare begin", silent) == (0, True)


@pytest.mark.parametrize(("status", "wanted"), [(0, 0), (decision.REFUSE, 1), (1, 0), (2, 0), (139, 0)])
def test_script_refuses_only_what_the_hook_refuses(tmp_path: Path, status: int, wanted: int) -> None:
    """A Python that fails in any other way refuses nobody."""
    assert run_script(tmp_path, "prepare begin", CROWDED, status)[0] == wanted


def test_hook_imports_nothing_heavy() -> None:
    """Judging loads lxml, and neither libvirt, nor rich, nor xmlschema, before it has to repair."""
    program = (
        "import io, sys; from papr_hook.hook import decision\n"
        "decision.main(['g', 'prepare', 'begin', '-'], io.BytesIO(sys.stdin.buffer.read()), io.StringIO())\n"
        "print(sorted({'libvirt', 'rich', 'xmlschema', 'argparse'} & set(sys.modules)))"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program], input=LAID_OUT, cwd=PROJECT, stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == b"[]\n"
