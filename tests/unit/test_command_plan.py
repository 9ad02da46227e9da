"""papr-hook plan: what layout would do, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from papr_hook.commands import _options, plan
from tests.helpers.cli import one_line, papr_hook
from tests.helpers.domain_xml import at, domain_xml, hostdev, nic
from tests.helpers.fake_connection import FakeDaemon
from tests.helpers.paths import GOLDEN, INVALID
from tests.helpers.sysfs import GROUPS, write_sysfs

PC = GOLDEN / "pc-shaped-in.xml"
LAID_OUT = GOLDEN / "pc-shaped-out.xml"


def test_each_device_has_a_sentence() -> None:
    """A device that moves has the diagnostic that makes it move; the summary has the costs before and after."""
    lines = papr_hook("plan", str(PC)).out.splitlines()
    assert lines[0] == f"{PC}: to be laid out"
    (disk,) = (line for line in lines if line.startswith("  <disk> vda: "))
    assert disk.startswith("  <disk> vda: moves from 0000:00:03.0 to 0000:")
    assert disk.endswith(" [not-isolated]")
    (behind,) = (line for line in lines if line.startswith("  <controller> usb 0: "))
    assert behind.endswith("behind a pcie-root-port [behind-bridge]")
    assert any(line.startswith("  vPHBs: 1 before, ") for line in lines)
    assert any(line.startswith("  locked-memory limit: 20 MiB before, ") for line in lines)
    assert any("[nic-renamed]" in line for line in lines)


def test_a_compliant_guest_says_why_devices_stay() -> None:
    """Every device of a compliant guest stays, with the reason."""
    lines = papr_hook("plan", str(LAID_OUT)).out.splitlines()
    assert lines[0] == f"{LAID_OUT}: complies"
    devices = [line for line in lines if line.startswith("  <")]
    assert devices
    assert all(": stays at " in line and ": is alone on vPHB " in line for line in devices), devices


def test_json_has_the_same(tmp_path: Path) -> None:
    """--json prints an array of plans, in the order of the arguments."""
    ran = papr_hook("plan", "--json", str(PC), str(GOLDEN / "x86-in.xml"), str(LAID_OUT))
    assert ran.status == 0
    first, other, last = json.loads(ran.out)
    assert (first["changed"], last["changed"]) == (True, False)
    assert other == {"source": str(GOLDEN / "x86-in.xml"), "skipped": "not a pseries guest"}
    assert {device["device"] for device in first["devices"]} >= {"<disk> vda", "<rng> virtio"}
    assert [nic["mac"][-2:] for nic in first["interfaces"]][-1] == "02"
    assert not any(device["moves"] for device in last["devices"])
    assert first["after"]["vphbs"] > first["before"]["vphbs"]


def test_endpoints_have_costs_and_eeh(tmp_path: Path) -> None:
    """Two IOMMU groups on one vPHB have no EEH before the layout, and the tables of DMA windows grow with vPHBs."""
    sysfs = str(write_sysfs(tmp_path, GROUPS))
    xml = (GOLDEN / "two-endpoints-on-one-in.xml").read_bytes()
    (plan_,) = json.loads(papr_hook("plan", "--json", "--sysfs", sysfs, "-", stdin=xml).out)
    assert plan_["before"]["without_eeh"] != []
    assert plan_["after"]["without_eeh"] == []
    assert plan_["after"]["dma_windows"] >= 2 * plan_["before"]["dma_windows"]
    text = papr_hook("plan", "--sysfs", sysfs, "-", stdin=xml).out
    assert "EEH before: does not work on vPHB" in text
    assert "EEH after: works" in text


@pytest.mark.parametrize(
    ("flags", "end", "warns"),
    [
        ("0x14220c", (1 << 40) + 0xFFF, True),
        ("0x14220c", (1 << 39), False),
        ("0x40200", (1 << 31) + 0xFFF, True),
        ("0x40200", (1 << 24), False),
    ],
)
def test_bars_that_exceed_the_windows(flags: str, end: int, warns: bool, tmp_path: Path) -> None:
    """BARs that do not fit into a vPHB's windows are a warning."""
    sysfs = write_sysfs(tmp_path, {"0001:01:00.0": 5})
    device = (sysfs / "bus/pci/devices/0001:01:00.0").resolve()
    (device / "resource").write_text(f"0x0 0x{end:x} {flags}\n0x0 0x0 0x0\n")
    xml = domain_xml(hostdev("0001:01:00.0", at(1)), running=False)
    assert ("of the 64-bit window" in papr_hook("plan", "--sysfs", str(sysfs), "-", stdin=xml).out) == warns


def test_guests_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """--all and names plan the guests of libvirt; one that cannot be laid out is reported, and the status is 1."""
    daemon = FakeDaemon()
    monkeypatch.setattr(plan, "connect", daemon.connect)
    monkeypatch.setattr(_options, "connect", daemon.connect)
    daemon.add("good", domain_xml(nic(1, at(0)), running=False))
    daemon.add("broken", (INVALID / "index-twice/input.xml").read_bytes())
    ran = papr_hook("plan", "--all")
    assert ran.status == 1
    assert ran.out.startswith("good: ")
    assert ran.err.startswith("papr-hook: broken: ")
    assert one_line(ran.err)
    assert papr_hook("plan", "good").out.startswith("good: ")
    assert papr_hook("plan", "nobody").status == 2


def test_what_to_plan_is_needed() -> None:
    """Without a FILE, a GUEST or --all, and with both, plan is used wrongly."""
    for arguments in ([], ["--all", "guest"]):
        ran = papr_hook("plan", *arguments)
        assert (ran.status, ran.err) == (2, "papr-hook: plan needs FILE or GUEST, or --all\n")
