"""The hook, called by libvirt itself: every operation, and what a guest's Linux sees of its layout."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from papr_hook import domainxml
from tests.harness import guest
from tests.harness.guest_image import Image
from tests.harness.guest_inventory import Inventory
from tests.harness.libvirt_host import Host
from tests.helpers import hook_installation
from tests.helpers.cli import one_line, papr_hook
from tests.helpers.domain_xml import at, file_disk, mac, nic
from tests.helpers.guests import crowded, pc_shaped
from tests.helpers.paths import PROJECT


@pytest.fixture
def console(root: Path) -> Iterator[Path]:
    """A file for a guest's console."""
    file = root / "console"
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture
def analysis(make_host: Callable[[str], Host]) -> Host:
    """A host with the hook, its calls recorded."""
    one = make_host("judged")
    hook_installation.install(one, record=True)
    return one


def definition_of(host: Host, name: str) -> str:
    return host.dumpxml(name, "--inactive", "--security-info")


def shown(host: Host, name: str, tmp_path: Path) -> dict[str, str]:
    """The guest's PCI addresses that papr-hook show prints, with the device at each."""
    file = tmp_path / "shown.xml"
    file.write_text(host.dumpxml(name))
    out = papr_hook("show", str(file)).out
    return dict(re.findall(r"([0-9a-f]{4}:00:[0-9a-f]{2}\.[0-7])  (.*)", out))


def refused_then_started(host: Host, name: str) -> str:
    """Start a guest, and again once it is laid out. Return what virsh said of the first start, which is refused."""
    refused = host.virsh("start", name, check=False)
    assert refused.returncode == 1
    wait_until_laid_out(host, name)
    host.virsh("start", name)
    return refused.stderr


def wait_until_laid_out(host: Host, name: str) -> str:
    """Wait for the hook's helper. Return the guest's domain XML."""
    deadline = time.monotonic() + 10
    while papr_hook("check", stdin=(xml := definition_of(host, name)).encode()).status != 0:
        assert time.monotonic() < deadline, xml
    return xml


def test_refused_once_then_one_device_per_vphb(
    make_host: Callable[[str], Host], image: Image, console: Path, disk: Path, tmp_path: Path
) -> None:
    """A PC-shaped guest is refused with one line, starts on the next try, and its Linux sees what show says."""
    host = make_host("main")
    hook_installation.install(host)
    host.define(guest.domain("pc", image, console, pc_shaped(disk)))
    said = refused_then_started(host, "pc")
    line = re.search(r"papr-hook: guest 'pc': not started: .*", said)
    assert line is not None, said
    assert "shares vPHB 0 with" in line[0]
    assert "its domain XML is being laid out: start it again in a moment" in line[0]
    assert said.count("papr-hook:") == 1

    seen: Inventory = guest.wait_for(console)
    drawn = shown(host, "pc", tmp_path)
    assert sorted(drawn) == [device.address for device in seen.devices]
    assert len({device.domain for device in seen.devices}) == len(seen.devices) == 7
    for number in (1, 2):
        nic = seen.by_mac(mac(number))
        assert nic is not None
        assert drawn[nic.address] == f"<interface> {mac(number)}"
    vda = seen.by_disk("vda")
    assert vda is not None
    assert drawn[vda.address] == "<disk> vda"
    assert [phb.domain for phb in seen.phbs] == [*range(9), 29, 30]
    assert {phb.config_space_type for phb in seen.phbs} == {1}
    groups = [device.iommu_group for device in seen.devices if device.iommu_group is not None]
    assert len(set(groups)) == len(groups)
    e1000e = seen.by_mac(mac(2))
    assert e1000e is not None
    assert e1000e.config_size == 4096

    check_hotplug(host, console, tmp_path)


def check_hotplug(host: Host, console: Path, tmp_path: Path) -> None:
    """libvirt puts an unplaced NIC on vPHB 0, beside the first; a placed one goes to the spare for NICs. Both leave."""
    plain = tmp_path / "plain.xml"
    plain.write_text(nic(8))
    placed = tmp_path / "placed.xml"
    placed.write_text(nic(9, at(10, 1)))
    for file in (plain, placed):
        host.virsh("attach-device", "pc", str(file), "--live")
    seen = guest.wait_for(console, lambda seen: {8, 9} <= {n for n in (8, 9) if seen.by_mac(mac(n))})
    addresses = {n: device.address for n in (8, 9) if (device := seen.by_mac(mac(n)))}
    assert addresses == {8: "0000:00:01.0", 9: "001d:00:01.0"}
    for file in (plain, placed):
        host.virsh("detach-device", "pc", str(file), "--live")
    guest.wait_for(console, lambda seen: not any(seen.by_mac(mac(n)) for n in (8, 9)))


def test_root_ports_that_libvirt_itself_refuses(
    host: Host, image: Image, console: Path, disk: Path, tmp_path: Path
) -> None:
    """libvirt does not take a pseries guest with root ports; laid out it does, and starts it."""
    ports = (
        "<controller type='pci' index='0' model='pci-root'/>\n"
        f"<controller type='pci' index='1' model='pcie-root-port'>{at(0, 2)}</controller>\n"
        f"<controller type='pci' index='2' model='pcie-to-pci-bridge'>{at(1, 0)}</controller>\n"
        + file_disk(disk, "vda", at(2, 1))
        + "".join(nic(n, at(0, n + 2)) for n in range(6))
    )
    file = tmp_path / "ports.xml"
    file.write_text(guest.domain("ports", image, console, ports))
    unchanged = host.virsh("define", "--validate", str(file), check=False)
    assert "pcie-root-port" in unchanged.stderr
    assert papr_hook("layout", "-i", str(file)).status == 0
    host.virsh("define", "--validate", str(file))
    try:
        host.virsh("start", "ports")
        seen = guest.wait_for(console)
        assert sorted(shown(host, "ports", tmp_path)) == [device.address for device in seen.devices]
        assert len({device.domain for device in seen.devices}) == 7
    finally:
        host.virsh("destroy", "ports", check=False)
        host.virsh("undefine", "ports")


def test_refused_start_changes_nothing_but_placement(analysis: Host, image: Image, console: Path) -> None:
    """The definition keeps its passwords, its metadata and its title."""
    graphics = "<graphics type='vnc' passwd='secret'/><video><model type='vga'/></video>"
    extra = "<title>kept</title><metadata><a:b xmlns:a='urn:a'>kept too</a:b></metadata>"
    usb = "<controller type='usb' index='0' model='qemu-xhci'/>"
    xml = guest.domain("vnc", image, console, crowded() + usb + graphics, extra=extra)
    analysis.define(xml)
    before = definition_of(analysis, "vnc")
    assert analysis.virsh("start", "--paused", "vnc", check=False).returncode == 1
    after = wait_until_laid_out(analysis, "vnc")
    analysis.virsh("start", "--paused", "vnc")
    assert "passwd='secret'" in after
    assert without_placement(after) == without_placement(before)
    assert [call.split()[1:] for call in hook_installation.calls(analysis) if "prepare" in call] == [
        ["prepare", "begin", "-", "1"],
        ["prepare", "begin", "-", "0"],
    ]


def without_placement(xml: str) -> list[str]:
    """The lines of a definition that say nothing of PCI placement."""
    placement = r" *(<address type='pci'|<controller type='pci'|<model name='spapr-pci-host-bridge'/>|<target index=)"
    kept = [line.replace("/>", ">") for line in xml.splitlines() if not re.match(placement, line)]
    return [line for line in kept if "</controller>" not in line]


def test_transient_guest_is_told_what_to_do(analysis: Host, image: Image, console: Path, tmp_path: Path) -> None:
    """create of a guest that does not comply is refused, and does what it is told to."""
    file = tmp_path / "transient.xml"
    file.write_text(guest.domain("transient", image, console, crowded()))
    refused = analysis.virsh("create", "--paused", str(file), check=False)
    assert refused.returncode == 1
    assert "'papr-hook layout -i FILE'" in refused.stderr
    assert analysis.virsh("list", "--all", "--name").stdout.split() == []
    papr_hook("layout", "-i", str(file))
    analysis.virsh("create", "--paused", str(file))
    assert analysis.virsh("list", "--name").stdout.split() == ["transient"]


def test_create_over_a_definition_that_complies(analysis: Host, image: Image, console: Path, tmp_path: Path) -> None:
    """A guest created from another file than its definition is told of that file; the definition stays."""
    good = tmp_path / "good.xml"
    bad = tmp_path / "bad.xml"
    bad.write_text(guest.domain("both", image, console, crowded()))
    good.write_text(papr_hook("layout", str(bad)).out)
    analysis.virsh("define", str(good))
    identity = analysis.virsh("domuuid", "both").stdout.strip()
    bad.write_text(bad.read_text().replace("</name>", f"</name><uuid>{identity}</uuid>", 1))
    before = definition_of(analysis, "both")
    refused = analysis.virsh("create", str(bad), check=False)
    assert "'papr-hook layout -i FILE'" in refused.stderr
    assert definition_of(analysis, "both") == before
    analysis.virsh("start", "--paused", "both")


def test_warn_lets_it_start(make_host: Callable[[str], Host], image: Image, console: Path) -> None:
    """on_noncompliant_start = warn: nothing is refused, and the definition stays."""
    host = make_host("warned")
    hook_installation.install(host, conf="on_noncompliant_start = warn\n")
    host.define(guest.domain("crowd", image, console, crowded()))
    before = definition_of(host, "crowd")
    host.virsh("start", "--paused", "crowd")
    assert definition_of(host, "crowd") == before


def test_keep_lets_it_start(analysis: Host, image: Image, console: Path) -> None:
    """A person's mode='keep' is respected."""
    keep = "<metadata><papr:layout xmlns:papr='urn:papr-hook:domain:1' mode='keep'/></metadata>"
    analysis.define(guest.domain("kept", image, console, crowded(), extra=keep))
    analysis.virsh("start", "--paused", "kept")


@pytest.mark.parametrize(
    ("conf", "project"),
    [("spares = many\n", PROJECT), ("", Path("/nowhere"))],
    ids=["broken conf", "papr-hook gone"],
)
def test_a_fault_of_ours_lets_the_guest_start(
    make_host: Callable[[str], Host], image: Image, console: Path, conf: str, project: Path
) -> None:
    """Whatever is wrong with the hook itself, a guest starts."""
    host = make_host("faulty")
    hook_installation.install(host, conf=conf, project=project)
    host.define(guest.domain("crowd", image, console, crowded()))
    host.virsh("start", "--paused", "crowd")


def test_other_machines_are_not_judged(analysis: Host) -> None:
    """A ppc64 guest that is not pseries starts as it is."""
    analysis.define(
        "<domain type='qemu'><name>mac</name><memory unit='MiB'>128</memory>"
        "<os><type arch='ppc64' machine='mac99'>hvm</type></os></domain>"
    )
    analysis.virsh("start", "--paused", "mac")
    assert hook_installation.calls(analysis)[0] == "mac prepare begin - 0"


@pytest.fixture
def running(make_host: Callable[[str], Host], image: Image, console: Path, disk: Path) -> Host:
    """A host with a guest «old» that started, as it is, before the hook came."""
    host = make_host("running")
    devices = crowded() + file_disk(disk, "vda", at(0, 3))
    host.define(guest.domain("old", image, console, devices))
    host.virsh("start", "old")
    guest.wait_for(console)
    hook_installation.install(host, record=True)
    return host


def test_save_and_restore(running: Host, root: Path, console: Path) -> None:
    """A saved guest is restored with the layout that its state has."""
    image = root / "saved"
    running.virsh("save", "old", str(image))
    running.virsh("restore", str(image))
    assert hook_installation.calls(running) == [
        "old stopped end - 0",
        "old release end - 0",
        "old restore begin - 0",
        "old prepare begin - 0",
        "old start begin - 0",
        "old started begin - 0",
    ]
    assert guest.command(running, "old", "echo alive").strip() == "alive"


def test_managed_save(running: Host) -> None:
    """A start from a managed save is no cold start; the one after that is."""
    running.virsh("managedsave", "old")
    running.virsh("start", "old")
    assert guest.command(running, "old", "echo alive").strip() == "alive"
    operations = [call.split()[1] for call in hook_installation.calls(running)]
    assert operations[2:] == [
        "restore",
        "prepare",
        "start",
        "started",
    ]
    running.virsh("destroy", "old")
    refused_then_started(running, "old")


def test_revert_to_a_snapshot_of_an_old_layout(running: Host) -> None:
    """A memory snapshot that was taken before the guest was laid out can be reverted to, on and off."""
    running.virsh("snapshot-create-as", "old", "before")
    running.virsh("destroy", "old")
    assert "old: updated (effective at next start)\n" in papr_hook("adopt", "--yes", "-c", running.uri).out
    running.virsh("start", "old")
    earlier = len(hook_installation.calls(running))
    running.virsh("snapshot-revert", "old", "before")
    assert guest.command(running, "old", "echo alive").strip() == "alive"
    running.virsh("destroy", "old")
    running.virsh("snapshot-revert", "old", "before")
    assert guest.command(running, "old", "echo alive").strip() == "alive"
    assert [call.split()[1] for call in hook_installation.calls(running)[earlier:]].count("prepare") == 2


def test_restart_of_the_daemon(running: Host) -> None:
    """A running guest that does not comply survives the daemon's restart: reconnect is never refused."""
    running.restart()
    # libvirtd answers its clients while it still reconnects to its guests.
    seen: list[str] = []
    deadline = time.monotonic() + 30
    while not seen and time.monotonic() < deadline:
        seen = hook_installation.calls(running)
    assert seen == ["old reconnect begin - 0"]
    assert running.virsh("domstate", "old").stdout.strip() == "running"
    assert guest.command(running, "old", "echo alive").strip() == "alive"


def test_guest_lifecycle_of_one_that_complies(analysis: Host, image: Image, console: Path) -> None:
    """A guest that complies passes every operation of a life."""
    xml = guest.domain("fine", image, console, crowded())
    analysis.virsh("define", "/dev/stdin", input=papr_hook("layout", stdin=xml.encode()).out)
    analysis.virsh("start", "fine")
    guest.wait_for(console)
    analysis.virsh("destroy", "fine")
    analysis.virsh("start", "fine", "--paused")
    assert all(call.endswith(" 0") for call in hook_installation.calls(analysis))


@pytest.mark.parametrize("complies", [True, False], ids=["laid out", "old layout"])
def test_live_migration_keeps_the_layout(
    make_host: Callable[[str], Host], image: Image, console: Path, complies: bool
) -> None:
    """A guest migrates with the layout that it has, whichever that is."""
    source, target = make_host("source"), make_host("target")
    xml = guest.domain("moving", image, console, crowded())
    source.define(papr_hook("layout", stdin=xml.encode()).out if complies else xml)
    source.virsh("start", "moving")
    before = guest.wait_for(console)
    for host in (source, target):
        hook_installation.install(host, record=True)
    layout = layout_of(source, "moving")
    source.migrate("moving", target)
    assert hook_installation.calls(target)[:4] == [
        "moving migrate begin - 0",
        "moving prepare begin - 0",
        "moving start begin - 0",
        "moving started begin - 0",
    ]
    assert layout_of(target, "moving") == layout
    addresses = guest.command(target, "moving", "ls /sys/bus/pci/devices").split()
    assert sorted(addresses) == [device.address for device in before.devices]


def layout_of(host: Host, name: str) -> tuple[object, ...]:
    """The vPHBs of a running guest, and the address of each of its devices."""
    found = domainxml.read(host.dumpxml(name).encode()).guest
    assert found is not None
    return [(p.index, p.target) for p in found.phbs], [(d.name, d.address) for d in found.devices]


def test_no_libvirt_there() -> None:
    """A host that cannot be reached is one line."""
    ran = papr_hook("show", "-c", "qemu:///system?socket=/nowhere", "guest")
    assert ran.status == 2
    assert one_line(ran.err)
