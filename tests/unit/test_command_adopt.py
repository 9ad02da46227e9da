"""papr-hook adopt: the plan and the changes."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from papr_hook import cli
from papr_hook.errors import LibvirtError
from papr_hook.virt.backup import Backups
from tests.helpers.adopt import PC, Adopt
from tests.helpers.cli import papr_hook
from tests.helpers.fake_connection import FakeConnection, FakeDaemon
from tests.helpers.paths import GOLDEN

LAID_OUT = (GOLDEN / "pc-shaped-out.xml").read_bytes()
X86 = (GOLDEN / "x86-in.xml").read_bytes()
KEEP = (GOLDEN / "keep-in.xml").read_bytes()


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


def test_a_guest_that_is_named_twice(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """It is laid out once, and can be restored."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    ran = adopt("--yes", "pc", guest.uuid, "pc")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count("updated") == 1
    assert "1 to change" in ran.out
    assert adopt("--undo", "--yes").status == 0
    assert guest.xml == before


def test_a_guest_that_may_not_be_read(libvirt: FakeDaemon, adopt: Adopt) -> None:
    """It is one line, and the others go on; the status is 1."""
    libvirt.add("secret", PC)
    good = libvirt.add("good", PC)
    libvirt.unreadable.add("secret")
    ran = adopt("--yes")
    assert (ran.status, ran.err) == (1, "papr-hook: secret: could not read guest 'secret': access denied\n")
    assert papr_hook("check", stdin=good.xml).status == 0


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


def test_the_progress_on_a_terminal(libvirt: FakeDaemon, tmp_path: Path) -> None:
    """It is erased before each line, so that lines are whole, and in the end."""
    for number in range(20):
        libvirt.add(f"guest{number}", PC)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with redirect_stderr(Terminal()) as terminal:
        cli.main(["adopt", "--yes", "--backups", str(tmp_path / "backups")], io.BytesIO(), terminal)
    lines = [line.rpartition("\r\x1b[K")[2] for line in terminal.getvalue().split("\n")]
    assert "guest19: updated (effective at next start)" in lines
    assert not any("[" in line for line in lines if "note" not in line)
    assert "defining [###############               ] 10/20\r\x1b[K" in terminal.getvalue()


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
