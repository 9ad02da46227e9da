"""papr-hook adopt: the backups, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.errors import LibvirtError
from papr_hook.virt.backup import Backups
from papr_hook.virt.redefinition import Redefinition
from tests.helpers.adopt import PC, Adopt
from tests.helpers.cli import one_line
from tests.helpers.fake_connection import FakeConnection, FakeDaemon


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
    assert ran.status == 2
    assert one_line(ran.err)
    assert "backup in " in ran.err
    assert guest.xml == before


def test_two_at_a_time(libvirt: FakeDaemon, adopt: Adopt, tmp_path: Path) -> None:
    """Backups are of one process, so another one changes nothing meanwhile."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    with Backups(tmp_path / "backups").lock():
        ran = adopt("--yes")
    assert (ran.status, guest.xml) == (2, before)
    assert one_line(ran.err)
    assert "another 'papr-hook adopt'" in ran.err


def test_undo_after_an_adoption_that_was_killed(libvirt: FakeDaemon, adopt: Adopt, tmp_path: Path) -> None:
    """What the guest was before the adoption before that is still there."""
    guest = libvirt.add("pc", PC)
    before = guest.xml
    adopt("--yes")
    guest.xml = before.replace(b"<memory", b"<title>edited</title><memory", 1)
    with Backups(tmp_path / "backups").replace(guest.uuid) as killed:
        killed.save(guest.xml)
        killed.keep()
    assert "changed since it was adopted" in adopt("--undo", "--yes").err
    assert adopt("--undo", "--yes", "--force").status == 0
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
