"""The sessions of root in docs/, on a host with the gateway and the example as a guest."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from tests.harness.gateway_host import GatewayHost
from tests.helpers import documents
from tests.helpers.client_sequences import domain_xml, hostdev_addresses, nic, nic_addresses
from tests.helpers.documents import DOCS, blocks
from tests.helpers.domain_xml import hostdev

IMAGES = "/var/lib/libvirt/images"
ENVIRONMENT = {"HOME": "/root", "LC_ALL": "C.UTF-8"}


def emulated(xml: str) -> str:
    """Return domain XML for a host without KVM and with little memory."""
    root = etree.fromstring(xml)
    root.set("type", "qemu")
    for memory in root.findall("memory"):
        memory.set("unit", "MiB")
        memory.text = "256"
    features = etree.SubElement(root, "features")
    etree.SubElement(features, "htm", state="off")
    return etree.tostring(root, encoding="unicode")


@pytest.mark.parametrize("name", ["adopt.md", "hotplug.md"])
def test_sessions(request: pytest.FixtureRequest, gateway: GatewayHost, tmp_path: Path, name: str) -> None:
    """What a page shows after a command is what that prints; --regenerate writes it."""
    host, page = gateway.host, DOCS / name
    path = documents.prepare(tmp_path)
    host.run(["mkdir", "-p", IMAGES])
    for disk in ("web", "data"):
        host.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{IMAGES}/{disk}.qcow2", "1M"])
    # The guest was there before papr-hook, or its layout was made by papr-hook.
    example = emulated((tmp_path / "web.xml").read_text())
    gateway.via_daemon("define", "/dev/stdin", input=example)
    if name == "hotplug.md":
        host.define(example)

    def run(script: str) -> str:
        settings = (f"{key}={value}" for key, value in {**ENVIRONMENT, "PATH": path}.items())
        return host.run(["env", *settings, "bash", "-c", f"cd {tmp_path}\n{script}"], timeout=120).stdout

    played = documents.play(page, "#", run)
    if request.config.getoption("--regenerate"):
        page.write_text(played)
    assert page.read_text() == played


def test_libvirt_takes_the_domain_xml(gateway: GatewayHost) -> None:
    """libvirt defines each guest that a page shows, and finds no fault in it."""
    for xml in ((DOCS / "web.xml").read_text(), *(block.text for block in blocks("xml") if "<domain " in block.text)):
        gateway.host.virsh("define", "--validate", "/dev/stdin", input=emulated(xml))


@pytest.mark.parametrize("attributes", ["mode='keep'", "spares='6'", "reserve='3 7'"])
def test_metadata_by_virsh(gateway: GatewayHost, attributes: str) -> None:
    """virsh metadata, as the page about overrides has it, sets and removes what overrides a layout."""
    host = gateway.host
    gateway.via_daemon("define", "/dev/stdin", input=emulated((DOCS / "web.xml").read_text()))
    command = ["metadata", "web", "urn:papr-hook:domain:1", "--config"]
    host.virsh(*command, "--key", "papr", "--set", f"<layout {attributes}/>")
    host.virsh("start", "--paused", "web")
    vphbs = host.dumpxml("web").count("model='pci-root'")
    assert vphbs == {"mode='keep'": 1, "spares='6'": 10, "reserve='3 7'": 10}[attributes]
    host.virsh("destroy", "web")
    host.virsh(*command, "--remove")
    host.virsh("start", "--paused", "web")
    assert host.dumpxml("web").count("model='pci-root'") == {"mode='keep'": 8}.get(attributes, vphbs)


def test_libvirt_alone(gateway: GatewayHost, functions: list[str]) -> None:
    """Without papr-hook, devices go where the page about the reasons says."""
    nics = nic(1) + nic(2)
    gateway.via_daemon("define", "/dev/stdin", input=domain_xml("alone", [nics, *map(hostdev, functions[:2])]))
    alone = gateway.via_daemon("dumpxml", "--inactive", "alone").stdout
    assert [at.domain for at in nic_addresses(alone).values()] == [0, 0]
    assert sorted(at.domain for at in hostdev_addresses(alone).values()) == [1, 2]
    assert alone.count("model='pci-root'") == 3
    gateway.via_daemon("undefine", "alone")
    gateway.via_daemon("define", "/dev/stdin", input=domain_xml("running", [nics]))
    gateway.via_daemon("start", "--paused", "running")
    gateway.via_daemon("attach-device", "running", "/dev/stdin", "--live", input=nic(3))
    running = gateway.via_daemon("dumpxml", "running").stdout
    assert [at.domain for at in nic_addresses(running).values()] == [0, 0, 0]
    assert running.count("model='pci-root'") == 1
