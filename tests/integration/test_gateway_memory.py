"""Clients that define a guest again and again without addresses: its network interfaces keep their names."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from papr_hook import domainxml
from tests.harness.gateway_host import GatewayHost
from tests.harness.guest_image import Image
from tests.helpers.domain_xml import file_disk, mac, nic
from tests.helpers.guests import complies, old_guest

NAMES = ("vda", "vdb", "vdc", "vdd")


@pytest.fixture
def disks(root: Path) -> Iterator[dict[str, str]]:
    """Make disks; their XML, by target."""
    files = {name: root / f"{name}.qcow2" for name in NAMES}
    for file in files.values():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "1M"], check=True)
    yield {name: file_disk(file, name) for name, file in files.items()}
    for file in files.values():
        file.unlink()


def places(xml: str) -> dict[str, str]:
    """Return the PCI domain that a guest's Linux has each device in, and its slot there."""
    guest = domainxml.read(xml.encode()).guest
    assert guest is not None
    targets = {phb.index: phb.target for phb in guest.phbs}
    addresses = {device.name: device.address for device in guest.devices}
    return {name: f"{targets[at.bus]}:{at.slot}" for name, at in addresses.items() if at is not None}


def nics(found: dict[str, str]) -> dict[str, str]:
    """Return the places of the network interfaces."""
    return {name: place for name, place in found.items() if name.startswith("<interface>")}


@pytest.mark.parametrize("undefine", [True, False], ids=["undefined between", "defined over"])
def test_hard_reboots(gateway: GatewayHost, image: Image, root: Path, disks: dict[str, str], undefine: bool) -> None:
    """As Nova does it: storage before interfaces, a volume and an interface attached live, and all of it again."""
    host = gateway.host
    volumes, interfaces = 1, 1

    def define() -> dict[str, str]:
        devices = "".join(disks[name] for name in NAMES[:volumes]) + "".join(nic(n) for n in range(1, interfaces + 1))
        host.define(old_guest(image, root, devices))
        xml = host.dumpxml("g", "--inactive")
        assert complies(xml)
        return places(xml)

    known = nics(define())
    assert known == {f"<interface> {mac(1)}": "0:1"}
    for _ in range(3):
        host.virsh("start", "--paused", "g")
        volumes, interfaces = volumes + 1, interfaces + 1
        host.attach("g", disks[NAMES[volumes - 1]], "--live")
        host.attach("g", nic(interfaces), "--live")
        running = nics(places(host.dumpxml("g")))
        assert running.items() > known.items()
        host.virsh("destroy", "g")
        if undefine:
            host.virsh("undefine", "g")
        known = nics(define())
        assert known == running
    host.virsh("start", "--paused", "g")
    assert nics(places(host.dumpxml("g"))) == known


def test_a_client_that_defines_over_what_a_person_placed(
    gateway: GatewayHost, image: Image, root: Path, disks: dict[str, str]
) -> None:
    """Every device that is there again has the place that it had, and so a second time."""
    devices = disks["vda"] + nic(1) + nic(2)
    gateway.host.define(old_guest(image, root, devices))
    xml = gateway.host.dumpxml("g", "--inactive").replace("slot='0x01'", "slot='0x07'")
    gateway.host.define(xml)
    moved = places(gateway.host.dumpxml("g", "--inactive"))
    assert set(moved.values()) >= {"0:7", "30:7"}
    for order in (devices, disks["vdb"] + nic(3) + devices):
        gateway.host.define(old_guest(image, root, order))
        assert places(gateway.host.dumpxml("g", "--inactive")).items() >= moved.items()


def test_a_client_that_may_not_look(gateway: GatewayHost, image: Image, root: Path) -> None:
    """A guest without a UUID is a new one: it is laid out, and libvirt judges the name."""
    xml = old_guest(image, root, nic(1))
    gateway.host.define(xml)
    other = xml.replace("<uuid>6a2b0e5c-9a8f-4f0a-8b4f-0123456789ab</uuid>", "")
    done = gateway.same_result("define", "/dev/stdin", input=other)
    assert "already exists" in done.stderr
