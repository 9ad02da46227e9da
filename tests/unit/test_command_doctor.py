"""papr-hook doctor: a running guest, and another host."""

from __future__ import annotations

import json
import os

import pytest

from papr_hook import domainxml
from papr_hook.commands import doctor
from papr_hook.doctor import read_libvirt
from papr_hook.errors import LibvirtError
from tests.helpers.cli import one_line, papr_hook
from tests.helpers.fake_connection import FakeDaemon
from tests.helpers.paths import GOLDEN

PC = (GOLDEN / "pc-shaped-in.xml").read_bytes()
LAID_OUT = (GOLDEN / "pc-shaped-out.xml").read_bytes()
X86 = (GOLDEN / "x86-in.xml").read_bytes()
KEEP = (GOLDEN / "keep-in.xml").read_bytes()

CHANNEL = (
    b"<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>"
    b"<address type='virtio-serial' controller='0' bus='0' port='1'/></channel></devices>"
)


def qtree(xml: bytes, extra: str = "") -> str:
    """Return what QEMU prints of a guest that has what its domain XML says."""
    guest = domainxml.read(xml).guest
    assert guest is not None
    lines = ["bus: main-system-bus", "  type System"]
    for phb in guest.phbs:
        lines += ['  dev: spapr-pci-host-bridge, id ""', f"    index = {phb.target} ({phb.target:#x})"]
        lines += ["    pcie-extended-configuration-space = true", "    bus: pci", "      type PCI"]
        for device in guest.devices:
            at = device.address
            if at is not None and at.bus == phb.index:
                lines += ['      dev: device, id ""', f"        addr = {at.slot:02x}.{at.function:x}"]
    return "\n".join(lines) + f"\n{extra}"


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    """A libvirt that doctor connects to."""
    made = FakeDaemon()
    monkeypatch.setattr(doctor, "connect", made.connect)
    monkeypatch.setattr(read_libvirt, "connect", made.connect)
    return made


def test_a_running_guest(libvirt: FakeDaemon) -> None:
    """Notes alone are no fault; one of them says what was asked."""
    guest = libvirt.add("web", LAID_OUT, is_running=True)
    libvirt.monitor = {"info qtree": qtree(guest.xml)}.__getitem__
    ran = papr_hook("doctor", "web")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.split()[-1] for line in lines] == ["[free-vphbs]", "[monitor-used]", "wrong"]
    assert "tainted" in lines[1]


def test_a_phb_behind_libvirts_back(libvirt: FakeDaemon) -> None:
    """It is an error; --json has the same findings."""
    guest = libvirt.add("web", LAID_OUT, is_running=True)
    extra = '  dev: spapr-pci-host-bridge, id "extra"\n    index = 25 (0x19)\n'
    extra += "    pcie-extended-configuration-space = true\n"
    libvirt.monitor = lambda command: qtree(guest.xml, extra)
    ran = papr_hook("doctor", "web")
    assert ran.status == 1
    assert "web: error: PHB 25 'extra' is in QEMU but not in libvirt's domain XML" in ran.out
    found = json.loads(papr_hook("doctor", "--json", "web").out)
    assert [one["name"] for one in found] == ["phb-unknown", "free-vphbs", "monitor-used"]
    assert found[0] == {**found[0], "source": "web", "severity": "error", "rule": None, "device": "PHB 25 'extra'"}


def test_warnings_count_with_strict(libvirt: FakeDaemon) -> None:
    """A machine type without extended configuration space is a warning."""
    guest = libvirt.add("web", LAID_OUT, is_running=True)
    libvirt.monitor = lambda command: qtree(guest.xml).replace("= true", "= false")
    assert papr_hook("doctor", "web").status == 0
    strict = papr_hook("doctor", "--strict", "web")
    assert strict.status == 1
    assert "error: PCIe devices on the PHBs" in strict.out


def test_an_agent_is_asked(libvirt: FakeDaemon) -> None:
    """Only where one is connected."""
    guest = libvirt.add("web", LAID_OUT.replace(b"</devices>", CHANNEL), is_running=True)
    libvirt.monitor = lambda command: qtree(guest.xml)
    libvirt.agent = lambda command: '{"error": {"class": "CommandNotFound"}}'
    assert "[hotplug-unknown]" in papr_hook("doctor", "web").out


def test_a_guest_that_does_not_run(libvirt: FakeDaemon) -> None:
    """Its domain XML is checked, and QEMU is not asked."""
    libvirt.add("web", PC)
    ran = papr_hook("doctor", "web")
    assert ran.status == 1
    assert "[pci-root-only]" in ran.out
    assert ran.out.splitlines()[-1].endswith("[not-running]")


def test_guests_that_are_not_laid_out(libvirt: FakeDaemon) -> None:
    """Another machine's guest has nothing to examine; one that is kept has no rules to break."""
    libvirt.add("x86", X86, is_running=True)
    kept = libvirt.add("kept", KEEP, is_running=True)
    libvirt.monitor = lambda command: qtree(kept.xml)
    assert papr_hook("doctor", "x86").out.startswith("x86: note: not a pseries guest")
    ran = papr_hook("doctor", "kept")
    assert (ran.status, "isolat" in ran.out) == (0, False)


def vanish(command: str) -> str:
    """Fail as libvirt does when the guest has stopped."""
    raise LibvirtError("could not ask the QEMU of guest 'web': domain is not running")


@pytest.mark.parametrize("guest", ["web", "nobody"])
def test_a_guest_that_vanishes(libvirt: FakeDaemon, guest: str) -> None:
    """One line says so, with the status of what could not be run."""
    libvirt.add("web", LAID_OUT, is_running=True)
    libvirt.monitor = vanish
    ran = papr_hook("doctor", guest)
    assert (ran.status, ran.out) == (2, "")
    assert one_line(ran.err)
    assert f"'{guest}'" in ran.err


def test_another_host(libvirt: FakeDaemon) -> None:
    """Its libvirt can be asked for versions and guests on autostart; this host's files are not read."""
    libvirt.add("db", PC, autostart=True)
    libvirt.add("web", LAID_OUT, autostart=True)
    libvirt.add("off", PC)
    ran = papr_hook("doctor", "-c", "qemu+ssh://other/system")
    assert ran.status == 1
    assert libvirt.uris == ["qemu+ssh://other/system"]
    versions, autostart = ran.out.splitlines()
    assert versions.startswith("host: note: libvirt 9.0.0, QEMU 7.2.0, papr-hook ")
    assert autostart.startswith("host: error: guest 'db' is started at boot, but does not comply")


def test_a_guest_that_is_undefined_meanwhile(libvirt: FakeDaemon) -> None:
    """The others are examined."""
    gone = libvirt.add("gone", PC, autostart=True)
    libvirt.add("db", PC, autostart=True)

    def undefine(uuid: str) -> None:
        if uuid == gone.uuid:
            del libvirt.guests[uuid]

    libvirt.before_read = undefine
    ran = papr_hook("doctor", "-c", "qemu+ssh://other/system")
    assert [line.split()[2] for line in ran.out.splitlines()] == ["libvirt", "guest"]
    assert "'db'" in ran.out


def test_a_daemon_that_ends_meanwhile(libvirt: FakeDaemon) -> None:
    """That is a finding, and the rest is still reported."""
    libvirt.add("db", PC, autostart=True)

    def end(uuid: str) -> None:
        libvirt.is_up = False
        raise LibvirtError("could not read the guest: end of file")

    libvirt.before_read = end
    ran = papr_hook("doctor", "-c", "qemu+ssh://other/system")
    assert ran.status == 1
    assert "[libvirt-unreachable]" in ran.out
    assert "[versions]" in ran.out


def test_the_host_needs_root(libvirt: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user may not read what has to be read."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = papr_hook("doctor")
    assert (ran.status, ran.out, ran.err) == (2, "", "papr-hook: must be run as root\n")
