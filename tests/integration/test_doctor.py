"""papr-hook doctor on real guests: what QEMU has, what the guest sees, and what its agent says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import guest
from tests.harness.guest_image import Image
from tests.harness.libvirt_host import Host
from tests.helpers.cli import one_line, papr_hook
from tests.helpers.domain_xml import at, mac, nic
from tests.helpers.guests import laid_out, pc_shaped
from tests.helpers.polling import wait_until

AGENT = (
    "<channel type='unix'><source mode='bind'/><target type='virtio' name='org.qemu.guest_agent.0'/>"
    "<address type='virtio-serial' controller='0' bus='0' port='1'/></channel>\n"
)
PHB = "device_add spapr-pci-host-bridge,index=25,id=extra"


def vphbs(count: int) -> str:
    """Return some vPHBs."""
    return "".join(
        f"<controller type='pci' index='{n}' model='pci-root'><target index='{n}'/></controller>\n"
        for n in range(count)
    )


DEVICES = (
    vphbs(7)
    + nic(1, at(1, 1), model="e1000e")
    + f"<controller type='virtio-serial' index='0'>{at(2, 1)}</controller>\n"
)


def names(host: Host, name: str) -> dict[str, str]:
    """Return the severity of each finding about a guest, by its name."""
    ran = papr_hook("doctor", "--json", "-c", host.uri, name)
    assert ran.err == ""
    found = {one["name"]: one["severity"] for one in json.loads(ran.out)}
    assert ran.status == int("error" in found.values())
    return found


@pytest.fixture(scope="module")
def booted(host: Host, image: Image, root: Path) -> Iterator[Host]:
    """A host with a guest named doc, whose agent is connected."""
    console = root / "doc.console"
    host.virsh("create", "/dev/stdin", input=guest.domain("doc", image, console, DEVICES + AGENT))
    try:
        guest.wait_for(console)
        wait_until(lambda: "state='connected'" in host.dumpxml("doc"))
        yield host
    finally:
        host.virsh("destroy", "doc", check=False)


@pytest.fixture
def paused(host: Host, image: Image, root: Path, disk: Path) -> Iterator[Host]:
    """A host with a guest named still, laid out, that has not run an instruction."""
    xml = laid_out(guest.domain("still", image, root / "still.console", pc_shaped(disk)))
    host.virsh("create", "--paused", "/dev/stdin", input=xml)
    yield host
    host.virsh("destroy", "still", check=False)


def test_a_guest_that_is_well(booted: Host) -> None:
    """All that is found are notes, and one of them is about the taint, which libvirt shows as well."""
    taint = "custom monitor control commands issued"
    assert taint not in booted.virsh("dominfo", "doc").stdout
    assert names(booted, "doc") == dict.fromkeys(("free-vphbs", "monitor-used", "hotplug-ready"), "note")
    assert taint in booted.virsh("dominfo", "doc").stdout
    ran = papr_hook("doctor", "-c", booted.uri, "doc")
    assert "doc: note: 5 of 7 vPHBs are free for hotplug: 0, 3, 4, 5, 6 [free-vphbs]\n" in ran.out
    assert ran.out.endswith("doc: nothing is wrong\n")


def test_a_guest_that_cannot_take_devices(booted: Host) -> None:
    """The agent says which part is missing, once the daemon in the guest has ended."""
    guest.command(booted, "doc", "killall rtas_errd")
    try:
        wait_until(lambda: "hotplug-not-ready" in names(booted, "doc"))
        ran = papr_hook("doctor", "-c", booted.uri, "doc")
        assert "doc: warning: the daemon rtas_errd does not run (package ppc64-diag): " in ran.out
    finally:
        guest.command(booted, "doc", "rtas_errd")
    wait_until(lambda: "hotplug-ready" in names(booted, "doc"))


def test_every_device_is_where_libvirt_put_it(paused: Host) -> None:
    """A guest with all kinds of devices, each on a vPHB of its own, agrees with its domain XML."""
    assert names(paused, "still") == dict.fromkeys(("free-vphbs", "monitor-used"), "note")


def test_a_phb_behind_libvirts_back(paused: Host, root: Path) -> None:
    """It is an error, and rightly: what libvirt saves of the guest cannot be restored."""
    paused.virsh("qemu-monitor-command", "still", "--hmp", PHB)
    assert names(paused, "still")["phb-unknown"] == "error"
    ran = papr_hook("doctor", "-c", paused.uri, "still")
    assert "still: error: PHB 25 'extra' is in QEMU but not in libvirt's domain XML" in ran.out
    state = root / "still.save"
    paused.virsh("save", "still", str(state))
    assert paused.virsh("restore", "--paused", str(state), check=False).returncode != 0
    state.unlink()


def test_a_device_behind_libvirts_back(paused: Host) -> None:
    """It is a warning, and its vPHB is no longer free."""
    before = papr_hook("doctor", "-c", paused.uri, "still").out
    free = before.partition("hotplug: ")[2].split()[0].strip(",")
    assert free != "0"
    paused.virsh("qemu-monitor-command", "still", "--hmp", f"device_add virtio-rng-pci,id=mine,bus=pci.{free}.0,addr=1")
    assert names(paused, "still")["device-unknown"] == "warning"
    after = papr_hook("doctor", "-c", paused.uri, "still").out
    assert f"virtio-rng-pci 'mine' is on vPHB {free} slot 1 in QEMU" in after
    assert f"hotplug: {free}," not in after


def test_a_machine_without_extended_config_space(host: Host, image: Image, root: Path) -> None:
    """doctor warns of what the guest sees: PHBs have ibm,pci-config-space-type there, and PCIe devices lack it."""
    console = root / "old.console"
    xml = guest.domain("old", image, console, DEVICES).replace("machine='pseries'", "machine='pseries-2.8'")
    host.virsh("create", "/dev/stdin", input=xml)
    try:
        seen = guest.wait_for(console, lambda inventory: inventory.by_mac(mac(1)) is not None)
        plain = seen.by_mac(mac(1))
        assert plain is not None
        assert (plain.config_size, plain.config_space_type) == (256, None)
        assert {phb.config_space_type for phb in seen.phbs} == {1}
        assert names(host, "old")["config-space"] == "warning"
    finally:
        host.virsh("destroy", "old", check=False)


def test_a_guest_that_is_gone(host: Host) -> None:
    """One line names it, with the status of what could not be run."""
    ran = papr_hook("doctor", "-c", host.uri, "nobody")
    assert (ran.status, ran.out) == (2, "")
    assert one_line(ran.err)
    assert "nobody" in ran.err
