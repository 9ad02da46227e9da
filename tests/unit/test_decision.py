"""The hook's answers: which starts it refuses, what it says, and what it loads. No libvirt is needed."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from papr_hook.hook import decision, migration_marks, redefine
from papr_hook.hook.redefine import Helper, RefusedGuest
from papr_hook.virt.store import Autostart
from tests.helpers.cli import Ran, one_line
from tests.helpers.paths import GOLDEN, INVALID, PROJECT

NOT_COMPLIANT = (GOLDEN / "pc-shaped-in.xml").read_bytes()
LAID_OUT = (GOLDEN / "pc-shaped-out.xml").read_bytes()
UUID = "7a0c1d4e-0000-4000-8000-000000000001"
REASON = "<disk> vda shares vPHB 0"

OPERATIONS = [
    "prepare begin", "start begin", "started begin", "stopped end", "release end", "reconnect begin",
    "migrate begin", "restore begin", "attach begin", "prepare end", "migrate end", "frobnicate begin",
]  # fmt: skip


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a host's files, and a configuration that says where they are. Return their directory."""
    conf = tmp_path / "papr-hook.conf"
    conf.write_text(
        f"[papr-hook]\nuri = test:///default\ndomain_dir = {tmp_path}/qemu\n"
        f"snapshot_dir = {tmp_path}/snapshot\nlibvirt_run_dir = {tmp_path}/run\nsysfs = {tmp_path}/sys\n"
    )
    monkeypatch.setattr("papr_hook.config.CONF", conf)
    return tmp_path


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is written to the journal."""
    written: list[str] = []
    monkeypatch.setattr("papr_hook.journal.log", lambda priority, text: written.append(text))
    return written


def call(operation: str, data: bytes, guest: str = "pc-shaped") -> Ran:
    """Call the hook as libvirt does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        status = decision.main([guest, *operation.split(), "-"], io.BytesIO(data))
    return Ran(status, out.getvalue(), err.getvalue())


def define(host: Path, data: bytes = NOT_COMPLIANT) -> None:
    """Have libvirt keep domain XML for the guest."""
    (host / "qemu").mkdir(exist_ok=True)
    (host / "qemu/pc-shaped.xml").write_bytes(data)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_only_a_start_is_refused(host: Path, operation: str) -> None:
    """Whatever libvirt asks, only the start of a guest that does not comply is refused; nothing is ever printed."""
    ran = call(operation, NOT_COMPLIANT)
    if operation == "prepare begin":
        assert (ran.status, ran.out) == (decision.REFUSE, "")
        assert one_line(ran.err)
        assert ran.err.startswith(f"papr-hook: guest 'pc-shaped': not started: {REASON}")
    else:
        assert ran == Ran(0, "", "")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("bad", sorted(folder.name for folder in INVALID.iterdir()))
def test_bad_input_refuses_nothing(host: Path, operation: str, bad: str) -> None:
    """Domain XML that libvirt would never pass is let through, with a line at prepare."""
    ran = call(operation, (INVALID / bad / "input.xml").read_bytes())
    if bad == "too-many-endpoints" and operation == "prepare begin":
        assert ran.status == decision.REFUSE
        assert "it cannot be laid out: " in ran.err
    else:
        assert (ran.status, ran.out) == (0, "")
    if operation == "prepare begin":
        assert one_line(ran.err)


@pytest.mark.parametrize("golden", ["pc-shaped-out", "spare-used-up-in", "x86-in", "powernv-in", "keep-in"])
def test_silent_starts(host: Path, golden: str) -> None:
    """A guest that complies, if with too few spares, another machine's, and one that opted out start in silence."""
    assert call("prepare begin", (GOLDEN / f"{golden}.xml").read_bytes()) == Ran(0, "", "")


@pytest.mark.parametrize("operation", ["migrate begin", "restore begin"])
def test_arriving_guest_is_let_through_once(host: Path, operation: str) -> None:
    """The prepare after a migrate or a restore is that guest's, and the next one is a cold start."""
    call(operation, NOT_COMPLIANT)
    assert call("prepare begin", NOT_COMPLIANT, "another").status == decision.REFUSE
    arrival = call("prepare begin", NOT_COMPLIANT)
    assert arrival.status == 0
    assert "it is being migrated in or restored" in arrival.err
    assert call("prepare begin", NOT_COMPLIANT).status == decision.REFUSE


@pytest.mark.parametrize("operation", ["migrate begin", "restore begin"])
@pytest.mark.parametrize("fault", ["full", "a file in its place"])
def test_marks_that_cannot_be_kept_refuse_nothing(
    host: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], operation: str, fault: str
) -> None:
    """Where no mark can be written, the migration goes on, and so does every start: it may be the migration's."""
    if fault == "full":
        monkeypatch.setattr(migration_marks, "mark", _no_space)
    else:
        (host / "run").write_text("")
    assert call(operation, NOT_COMPLIANT) == Ran(0, "", "")
    assert f"{host}/run/papr-hook" in lines[0]
    start = call("prepare begin", NOT_COMPLIANT)
    assert start.status == 0
    assert f"{host}/run/papr-hook cannot be written" in start.err


def _no_space(*arguments: object) -> None:
    raise OSError(28, os.strerror(28))


def test_resumed_state(host: Path) -> None:
    """Domain XML of a run, of a guest whose next start has none of that: a saved state, whatever call resumes it."""
    define(host)
    ran = NOT_COMPLIANT.replace(b"<os>", b"<resource><partition>/machine</partition></resource><os>")
    back = call("prepare begin", ran)
    assert back.status == 0
    assert "it resumes a saved state" in back.err


def test_snapshot(host: Path) -> None:
    """A start that may be a step of a revert is let through."""
    (host / "snapshot/pc-shaped").mkdir(parents=True)
    snapshot = f"<domainsnapshot><state>shutoff</state>{NOT_COMPLIANT.decode()}</domainsnapshot>"
    (host / "snapshot/pc-shaped/s.xml").write_text(snapshot)
    back = call("prepare begin", NOT_COMPLIANT)
    assert back.status == 0
    assert "a snapshot's revert or deletion" in back.err


def test_guest_from_a_file(host: Path) -> None:
    """A transient guest, and one created from another file than libvirt's, are told of the file."""
    assert "run 'papr-hook layout -i FILE'" in call("prepare begin", NOT_COMPLIANT).err
    define(host, LAID_OUT)
    assert "run 'papr-hook layout -i FILE'" in call("prepare begin", NOT_COMPLIANT).err


@pytest.mark.parametrize(
    ("helper", "autostart", "told"),
    [
        (Helper.CONNECTED, None, "its domain XML is being laid out: start it again in a moment"),
        (Helper.CONNECTED, "pc-shaped.xml", "its domain XML is being laid out: start it again in a moment"),
        (Helper.WAITING, None, "run 'papr-hook adopt pc-shaped' and start it again"),
        (Helper.WAITING, "pc-shaped.xml", "it is laid out and started once libvirt serves clients"),
        (Helper.WAITING, "pc-shaped.xml.once", "it is laid out and started once libvirt serves clients"),
        (Helper.FAILED, None, "run 'papr-hook adopt pc-shaped' and start it again"),
        (Helper.FAILED, "pc-shaped.xml", "run 'papr-hook adopt pc-shaped' and start it again"),
    ],
)
def test_repair(host: Path, monkeypatch: pytest.MonkeyPatch, helper: Helper, autostart: str | None, told: str) -> None:
    """The user of a defined guest is told what the helper does, or what to do without it."""
    asked: list[RefusedGuest] = []

    def redefine_after_exit(guest: RefusedGuest, *arguments: object) -> Helper:
        asked.append(guest)
        return helper

    monkeypatch.setattr(redefine, "redefine_after_exit", redefine_after_exit)
    define(host, b"<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n\n" + NOT_COMPLIANT)
    if autostart is not None:
        (host / "qemu/autostart").mkdir()
        (host / "qemu/autostart" / autostart).symlink_to(host / "qemu/pc-shaped.xml")
    ran = call("prepare begin", NOT_COMPLIANT.replace(b"<os>", f"<uuid>{UUID}</uuid><os>".encode()))
    assert ran.status == decision.REFUSE
    assert told in ran.err
    assert one_line(ran.err)
    kinds = {None: Autostart.NEVER, "pc-shaped.xml": Autostart.ALWAYS, "pc-shaped.xml.once": Autostart.ONCE}
    expected = kinds[autostart]
    assert asked == [RefusedGuest("pc-shaped", UUID, expected, NOT_COMPLIANT.strip())]


def test_warn(host: Path) -> None:
    """on_noncompliant_start = warn says the reason and lets the guest start."""
    with (host / "papr-hook.conf").open("a") as conf:
        conf.write("on_noncompliant_start = warn\n")
    ran = call("prepare begin", NOT_COMPLIANT)
    assert ran.status == 0
    assert REASON in ran.err


@pytest.mark.parametrize("operation", ["prepare begin", "migrate begin", "restore begin"])
def test_broken_conf_refuses_nothing(host: Path, operation: str) -> None:
    """A configuration that cannot be read lets everything through, with a line that names it."""
    (host / "papr-hook.conf").write_text("[papr-hook]\non_noncompliant_start = never\n")
    ran = call(operation, NOT_COMPLIANT)
    assert (ran.status, ran.out) == (0, "")
    assert one_line(ran.err)
    assert "line 2: on_noncompliant_start = 'never' is not refuse or warn" in ran.err


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError(), RecursionError("deep\nand wide")])
def test_bug_refuses_nothing(host: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whatever is raised inside, the guest starts, and one line says what it was."""

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("papr_hook.pipeline.analyze", fail)
    ran = call("prepare begin", NOT_COMPLIANT)
    assert ran.status == 0
    assert one_line(ran.err)
    assert f"unexpected {type(error).__name__}" in ran.err
    assert "starting it unchanged" in ran.err


@pytest.mark.parametrize("arguments", [[], ["guest"], ["guest", "prepare"]])
def test_too_few_arguments(arguments: list[str]) -> None:
    """A call that libvirt never makes is let through."""
    assert decision.main(arguments, io.BytesIO(NOT_COMPLIANT)) == 0


def test_closed_stderr(host: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    """Without a stderr the answer and the journal are the same."""
    monkeypatch.setattr(sys, "stderr", None)
    assert decision.main(["pc-shaped", "prepare", "begin", "-"], io.BytesIO(NOT_COMPLIANT)) == decision.REFUSE
    assert REASON in lines[0]


@pytest.mark.parametrize(("uid", "status"), [(0, decision.REFUSE), (1000, decision.GO_ON)])
def test_guests_of_a_session(
    host: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lines: list[str],
    uid: int,
    status: int,
) -> None:
    """libvirt runs the hook of qemu:///session as the user: those guests go on, and nothing is written."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(sys, "argv", ["hook", "pc-shaped", "prepare", "begin", "-"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(NOT_COMPLIANT)))
    assert decision.run() == status
    assert bool(capsys.readouterr().err) == bool(lines) == (uid == 0)


def test_lean_imports(host: Path) -> None:
    """A decision loads lxml, and nothing else that takes a millisecond and that it can do without."""
    program = (
        "import io, pathlib, sys, papr_hook.config\n"
        f"papr_hook.config.CONF = pathlib.Path({str(host / 'papr-hook.conf')!r})\n"
        "from papr_hook.hook import decision\n"
        f"data = pathlib.Path({str(GOLDEN / 'pc-shaped-out.xml')!r}).read_bytes()\n"
        "assert decision.main(['g', 'prepare', 'begin', '-'], io.BytesIO(data)) == 0\n"
        "print(*sys.modules)\n"
        "import papr_hook.records\n"
        "classes = [c for m in list(sys.modules.values()) if m.__name__.startswith('papr_hook')"
        " for c in vars(m).values() if hasattr(c, '__dataclass_fields__') and isinstance(c, type)]\n"
        "print(*{c.__name__ for c in classes if not issubclass(c, papr_hook.records.Record)})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, stdout=subprocess.PIPE, check=True)
    modules, classes = (set(line.split()) for line in done.stdout.decode().splitlines())
    assert "lxml.etree" in modules
    # The others share their methods: a PciAddress has an order, and a DeviceGroup equals only itself.
    assert classes == {"PciAddress", "DeviceGroup"}
    assert not {"libvirt", "rich", "xmlschema", "argparse", "socket", "typing", "json"} & modules
