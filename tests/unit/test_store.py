"""What libvirt's files say about guests: their domain XML, their snapshots, their autostart."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.virt import store
from papr_hook.virt.store import Autostart
from tests.helpers.paths import GOLDEN

GUEST = (GOLDEN / "pc-shaped-in.xml").read_text()
LAID_OUT = (GOLDEN / "pc-shaped-out.xml").read_text()
PARTITION = "<resource><partition>/machine</partition></resource><os>"
RAN = GUEST.replace("<os>", PARTITION, 1)
OTHER = (GOLDEN / "x86-in.xml").read_text()


@pytest.mark.parametrize(
    "header",
    ["", "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE\nOVERWRITTEN\n-->\n\n"],
)
def test_domain_xml_without_libvirts_header(tmp_path: Path, header: str) -> None:
    """The domain XML is what libvirt's API returns, without the warning that the file begins with."""
    (tmp_path / "g.xml").write_text(f"{header}<domain><!-- kept --></domain>\n")
    assert store.read_domain_xml(tmp_path, "g") == b"<domain><!-- kept --></domain>"
    assert store.read_domain_xml(tmp_path, "h") is None


@pytest.mark.parametrize(
    ("links", "autostart"),
    [
        (["g.xml"], Autostart.ALWAYS),
        (["g.xml.once"], Autostart.ONCE),
        (["g.xml", "g.xml.once"], Autostart.ALWAYS),
        (["h.xml", "h.xml.once"], Autostart.NEVER),
    ],
)
def test_autostart(tmp_path: Path, links: list[str], autostart: Autostart) -> None:
    """A guest is on autostart at each boot, or at the next one, by its link."""
    assert store.read_autostart(tmp_path, "g") is Autostart.NEVER
    (tmp_path / "g.xml").touch()
    (tmp_path / "autostart").mkdir()
    for link in links:
        (tmp_path / "autostart" / link).symlink_to(tmp_path / "g.xml")
    assert store.read_autostart(tmp_path, "g") is autostart


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (GUEST, GUEST, True),
        (GUEST, RAN, True),
        (GUEST, LAID_OUT, False),
        (GUEST, "<not XML", False),
        ("<not XML", "<not XML", False),
        (OTHER, OTHER, False),
    ],
)
def test_same_layout(one: str, other: str, same: bool) -> None:
    """The layout of two pseries guests is compared; nothing else has one."""
    assert store.has_same_layout(one.encode(), other.encode()) == same


def snapshot(state: str, saved: str, disk: str = "internal") -> str:
    disks = f"<disks><disk name='vda' snapshot='{disk}'/></disks>"
    return f"<domainsnapshot><name>s</name><state>{state}</state>{disks}{saved}</domainsnapshot>"


def inactive(guest: str) -> str:
    return guest.replace("<domain", "<inactiveDomain", 1).replace("</domain>", "</inactiveDomain>")


@pytest.mark.parametrize(
    ("saved", "starting", "possible"),
    [
        (snapshot("running", GUEST), GUEST, True),
        (snapshot("paused", GUEST), GUEST, True),
        (snapshot("running", LAID_OUT), GUEST, False),
        (snapshot("running", RAN), RAN, True),
        (snapshot("running", RAN), GUEST, False),
        (snapshot("running", RAN + inactive(GUEST)), GUEST, False),
        (snapshot("shutoff", GUEST), GUEST, True),
        (snapshot("shutoff", LAID_OUT), GUEST, False),
        (snapshot("disk-snapshot", RAN + inactive(GUEST)), GUEST, True),
        (snapshot("disk-snapshot", LAID_OUT, "external"), GUEST, True),
        (snapshot("shutoff", "<broken/>"), GUEST, False),
        ("<not XML", GUEST, False),
        ("<domainsnapshot/>", GUEST, False),
    ],
)
def test_start_for_a_snapshot(tmp_path: Path, saved: str, starting: str, possible: bool) -> None:
    """A revert starts the snapshot's own domain XML; the deletion of an external snapshot starts the guest's."""
    (tmp_path / "g").mkdir()
    (tmp_path / "g/s.xml").write_text(saved)
    assert store.may_start_for_snapshot(tmp_path, "g", starting.encode()) == possible
    assert not store.may_start_for_snapshot(tmp_path, "h", starting.encode())


@pytest.mark.parametrize(("data", "ran"), [(GUEST, False), (RAN, True)])
def test_domain_xml_of_a_run(data: str, ran: bool) -> None:
    """libvirt adds the cgroup of a guest that it starts."""
    assert store.has_run(data.encode()) == ran
