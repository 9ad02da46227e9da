"""papr-hook adopt: the plan, the changes, and the way back."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Protocol

import pytest

from papr_hook import cli
from papr_hook.commands import _adoption
from papr_hook.errors import LibvirtError
from papr_hook.virt.backup import Backups
from papr_hook.virt.redefinition import Redefinition
from tests.helpers.cli import Ran, one_line, papr_hook
from tests.helpers.fake_connection import FakeConnection, FakeDaemon
from tests.helpers.paths import GOLDEN

PC = (GOLDEN / "pc-shaped-in.xml").read_bytes()
LAID_OUT = (GOLDEN / "pc-shaped-out.xml").read_bytes()
X86 = (GOLDEN / "x86-in.xml").read_bytes()
KEEP = (GOLDEN / "keep-in.xml").read_bytes()


class Adopt(Protocol):
    """Runs papr-hook adopt with a directory for backups."""

    def __call__(self, *arguments: str) -> Ran:
        """Run it with further arguments."""


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


def test_every_guest_has_an_outcome(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """Each guest is laid out, compliant or skipped with the reason, and named."""
    changed = libvirt.add("stopped", PC)
    running = libvirt.add("running", PC, is_running=True)
    saved = libvirt.add("saved", PC, has_managed_save=True)
    libvirt.add("compliant", LAID_OUT)
    libvirt.add("x86", X86)
    libvirt.add("kept", KEEP)
    before = saved.xml
    ran = adopt("--yes")
    assert (ran.status, ran.err) == (0, "")
    lines = [line for line in ran.out.splitlines() if not line.startswith("  ")]
    assert lines == [
        "stopped: to be laid out (effective at next start)",
        "running: to be laid out (running; effective at its next cold start)",
        "saved: skipped: managed save image; start the guest and shut it down, or remove the image",
        "compliant: complies",
        "x86: skipped: not a pseries guest",
        "kept: skipped: mode is keep",
        "2 to change, 1 compliant, 3 skipped, 0 failed",
        "stopped: updated (effective at next start)",
        "running: updated (running; effective at its next cold start)",
    ]
    assert saved.xml == before
    for guest in (changed, running):
        assert papr_hook("check", stdin=guest.xml).status == 0
    assert "2 to change" not in adopt("--yes").out


def test_the_plan_has_what_changes_for_each_guest(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """Below a guest that changes are its notes and warnings, such as interfaces that are renamed."""
    libvirt.add("pc", PC)
    notes = [line for line in adopt("--dry-run").out.splitlines() if line.startswith("  note: <interface> ")]
    assert any("52:54:00:00:00:02 moves from 0000:00:05.0" in note and "enp0s5" in note for note in notes)


def test_nothing_changes_without_consent(libvirt: FakeDaemon, adopt: Adopt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal --yes is needed; on a terminal only y or yes is consent."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    ran = adopt()
    assert ran.status == 2
    assert ran.err == "papr-hook: nothing was changed; pass --yes to change 1 guest\n"
    assert "pc: to be laid out" in ran.out
    assert adopt("--dry-run").status == 0
    assert guest.xml == before

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer, changes in (("\n", False), ("n\n", False), ("", False), ("y\n", True)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        ran = adopt()
        assert (ran.status, ran.err) == (0, "Change 1 guest? [y/N] ")
        assert (guest.xml != before) == changes, answer


def test_failures_are_collected(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """A guest that cannot be read, laid out or defined is one line, and the others go on; the status is 1."""
    libvirt.add("broken", (GOLDEN.parent / "invalid/index-twice/input.xml").read_bytes())
    libvirt.add("refused", PC)
    good = libvirt.add("good", PC)
    libvirt.refuses.add("refused")
    ran = adopt("--yes", "broken", "refused", "gone", "good")
    assert ran.status == 1
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == ["broken", "gone", "refused"]
    assert "good: updated" in ran.out
    assert papr_hook("check", stdin=good.xml).status == 0


def test_only_autostart(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """--autostart leaves the other guests out."""
    libvirt.add("manual", PC)
    libvirt.add("auto", PC, autostart=True)
    out = adopt("--autostart", "--dry-run").out
    assert "auto: to be laid out" in out
    assert "manual" not in out


@pytest.mark.parametrize("edits", [{2}, {2, 3}, {2, 4}])
def test_an_edit_after_the_plan_is_not_lost(libvirt: FakeDaemon, adopt: Adopt, edits: set[int]) -> None:
    """Domain XML that another client changes after the plan, or after another layout, is read again and laid out."""
    guest = libvirt.add("pc", PC)
    reads = []

    def edit(uuid: str) -> None:
        reads.append(uuid)
        if len(reads) in edits:
            guest.xml = guest.xml.replace(b"<memory", b"<!-- edited --><memory", 1)

    libvirt.before_read = edit
    assert adopt("--yes").status == 0
    assert guest.xml.count(b"<!-- edited -->") == len(edits)
    assert papr_hook("check", stdin=guest.xml).status == 0


def test_a_restart_of_the_daemon_loses_nothing(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """A daemon that is restarted between guests is asked again."""
    guests = [libvirt.add(name, PC) for name in ("one", "two", "three")]
    reads = []

    def end(uuid: str) -> None:
        reads.append(uuid)
        if len(reads) == 2:
            libvirt.is_up = False

    libvirt.before_read = end
    assert adopt("--yes").status == 0
    assert len(libvirt.uris) == 2
    assert all(papr_hook("check", stdin=guest.xml).status == 0 for guest in guests)


@pytest.mark.parametrize("is_defined", [False, True])
def test_a_daemon_that_ends_in_a_definition(
    libvirt: FakeDaemon, adopt: Adopt, monkeypatch: pytest.MonkeyPatch, is_defined: bool
) -> None:
    """The guest is laid out whether or not the daemon had defined it, and can be restored."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    define = FakeConnection.define

    def end(self: FakeConnection, definition: bytes) -> None:
        monkeypatch.setattr(FakeConnection, "define", define)
        if is_defined:
            define(self, definition)
        libvirt.is_up = False
        raise LibvirtError("could not define the guest: end of file")

    monkeypatch.setattr(FakeConnection, "define", end)
    ran = adopt("--yes")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.endswith("pc: updated (effective at next start)\n")
    assert papr_hook("check", stdin=guest.xml).status == 0
    assert adopt("--undo", "--yes", "--force").status == 0
    assert guest.xml == before


def test_an_error_after_a_definition(libvirt: FakeDaemon, adopt: Adopt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest counts as failed, and can be restored."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    redefine = FakeConnection.redefine_if_unchanged

    def lose_events(self: FakeConnection, name: str, judged: bytes, data: bytes) -> tuple[Redefinition, bytes]:
        redefine(self, name, judged, data)
        raise LibvirtError("could not receive events: end of file")

    monkeypatch.setattr(FakeConnection, "redefine_if_unchanged", lose_events)
    ran = adopt("--yes")
    assert (ran.status, ran.err) == (1, "papr-hook: pc: could not receive events: end of file\n")
    assert guest.xml != before
    monkeypatch.setattr(FakeConnection, "redefine_if_unchanged", redefine)
    assert adopt("--undo", "--yes", "--force").status == 0
    assert guest.xml == before


def test_undo_restores_what_was_there(libvirt: FakeDaemon, adopt: Adopt, tmp_path: Path) -> None:
    """--undo gives each guest, or one of them, the domain XML that it had, byte for byte, once."""
    guests = {name: libvirt.add(name, PC) for name in ("one", "two")}
    before = {name: guest.xml for name, guest in guests.items()}
    adopt("--yes")
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "backups").iterdir()] == [0o600] * 2
    assert (tmp_path / "backups").stat().st_mode & 0o777 == 0o700
    ran = adopt("--undo", "--yes", "two")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "two: restored; effective at next start")
    assert guests["two"].xml == before["two"]
    assert guests["one"].xml != before["one"]
    assert adopt("--undo", "--yes").status == 0
    assert guests["one"].xml == before["one"]
    assert adopt("--undo", "--yes").out == "there are no backups\n"
    assert adopt("--undo", "--yes", "one").err == "papr-hook: one: there is no backup of this guest\n"


@pytest.mark.parametrize("reason", ["refused", "saved", "complies"])
def test_an_older_backup_stays_if_a_guest_is_not_redefined(libvirt: FakeDaemon, adopt: Adopt, reason: str) -> None:
    """A guest that libvirt refuses to define, or that changes at the last moment, still has its older backup."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    adopt("--yes")
    laid_out = guest.xml
    guest.xml = before.replace(b"<memory", b"<title>edited</title><memory", 1)
    reads = []

    def change(uuid: str) -> None:
        reads.append(uuid)
        if len(reads) == 1 and reason == "saved":
            guest.has_managed_save = True
        if len(reads) == 2 and reason == "complies":
            guest.xml = laid_out

    libvirt.before_read = change
    if reason == "refused":
        libvirt.refuses.add("pc")
    ran = adopt("--yes")
    assert "pc: to be laid out" in ran.out
    assert "updated" not in ran.out
    libvirt.refuses.clear()
    assert adopt("--undo", "--yes", "--force").status == 0
    assert guest.xml == before


def test_undo_keeps_later_edits(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """A guest that was changed since is restored only with --force."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    adopt("--yes")
    guest.xml = edited = guest.xml.replace(b"<memory", b"<title>edited</title><memory", 1)
    ran = adopt("--undo", "--yes")
    assert ran.status == 1
    assert "changed since it was adopted" in ran.err
    assert one_line(ran.err)
    assert guest.xml == edited
    assert adopt("--undo", "--yes", "--force").status == 0
    assert guest.xml == before


@pytest.mark.parametrize("fault", ["other guest", "not XML", "writable", "link"])
def test_backups_that_were_tampered_with(fault: str, libvirt: FakeDaemon, adopt: Adopt, tmp_path: Path) -> None:
    """A backup that is not this guest's, is broken, or others can write is not restored, and the rest goes on."""
    guest = libvirt.add("pc", PC)
    other = libvirt.add("other", PC)
    before = other.xml
    adopt("--yes")
    after = guest.xml
    file = tmp_path / "backups" / f"{guest.uuid}.before.xml"
    if fault == "other guest":
        file.write_bytes(file.read_bytes().replace(guest.uuid.encode(), other.uuid.encode()))
    elif fault == "not XML":
        file.write_bytes(b"<domain")
    elif fault == "writable":
        file.chmod(0o666)
    else:
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    ran = adopt("--undo", "--yes", "--force")
    assert ran.status == 1
    assert one_line(ran.err)
    assert guest.xml == after
    assert other.xml == before


def test_without_a_backup_nothing_changes(libvirt: FakeDaemon, adopt: Adopt, tmp_path: Path) -> None:
    """A guest whose domain XML cannot be kept stays as it is."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    (tmp_path / "backups").write_text("")
    ran = adopt("--yes")
    assert ran.status == 1
    assert one_line(ran.err)
    assert "backup in " in ran.err
    assert guest.xml == before


def test_undo_goes_past_the_gateway(libvirt: FakeDaemon, adopt: Adopt, tmp_path: Path) -> None:
    """The gateway would lay out again what is restored, so libvirt's own socket is used if it is behind one."""
    conf = tmp_path / "papr-hook.conf"
    conf.write_text(f"[papr-hook]\nlibvirt_run_dir = {tmp_path}\n")
    adopt("--undo", "--yes", "--conf", str(conf))
    (tmp_path / "upstream").mkdir()
    (tmp_path / "upstream/libvirt-sock").write_text("")
    adopt("--undo", "--yes", "--conf", str(conf))
    assert libvirt.uris == ["qemu:///system", f"qemu:///system?socket={tmp_path}/upstream/libvirt-sock"]


def test_host_devices_of_another_host_are_left(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """The IOMMU groups of a remote host are not known here."""
    libvirt.add("plain", PC)
    libvirt.add("passthrough", (GOLDEN / "endpoint-together-in.xml").read_bytes())
    libvirt.add("network", PC.replace(b"<interface type='user'>", b"<interface type='network'><source network='n'/>"))
    libvirt.networks["n"] = b"<network><name>n</name><forward mode='hostdev'/></network>"
    out = adopt("--dry-run", "-c", "qemu+ssh://root@elsewhere/system").out
    assert "plain: to be laid out" in out
    assert out.count("skipped: host devices of another host; run papr-hook adopt there") == 2


def test_links_of_each_guest(libvirt: FakeDaemon, adopt: Adopt, tmp_path: Path) -> None:
    """--links writes the .link files of each guest into a directory named after its UUID."""
    guest = libvirt.add("pc", PC)
    adopt("--yes", "--links", str(tmp_path / "links"))
    assert (tmp_path / "links" / guest.uuid / "10-papr-hook-525400000002.link").exists()


def test_a_reader_that_leaves_does_not_stop_it(libvirt: FakeDaemon, tmp_path: Path) -> None:
    """adopt | head lays out every guest."""
    guests = [libvirt.add(f"guest{number}", PC) for number in range(5)]

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with redirect_stderr(io.StringIO()):
        status = cli.main(["adopt", "--yes", "--backups", str(tmp_path / "backups")], io.BytesIO(), Closed())
    assert status == 0
    assert all(papr_hook("check", stdin=guest.xml).status == 0 for guest in guests)


def test_an_interruption_leaves_no_guest_half_done(libvirt: FakeDaemon, adopt: Adopt, tmp_path: Path) -> None:
    """A guest was not touched, or is laid out and can be restored as any other."""
    guests = [libvirt.add(f"guest{number}", PC) for number in range(100)]
    before = [guest.xml for guest in guests]

    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            if "updated" in text:
                raise KeyboardInterrupt
            return len(text)

    with pytest.raises(KeyboardInterrupt):
        cli.main(["adopt", "--yes", "--backups", str(tmp_path / "backups")], io.BytesIO(), Interrupted())
    assert len(libvirt.uris) == 1, "it went on after the connection was closed"
    changed = sorted(guest.uuid for guest, xml in zip(guests, before) if guest.xml != xml)
    assert changed
    assert Backups(tmp_path / "backups").guests() == changed
    assert adopt("--undo", "--yes").status == 0
    assert [guest.xml for guest in guests] == before


def test_many_guests(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """A host with hundreds of guests is one plan."""
    for number in range(300):
        libvirt.add(f"guest{number}", LAID_OUT if number % 2 else X86)
    out = adopt("--dry-run").out
    assert out.splitlines()[-1] == "0 to change, 150 compliant, 150 skipped, 0 failed"
