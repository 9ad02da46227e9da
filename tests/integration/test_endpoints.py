"""Host devices and NUMA cells, with libvirt and a guest's Linux as the judges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from tests.harness import guest
from tests.harness.guest_image import Image
from tests.harness.libvirt_host import Host
from tests.helpers import sysfs as hosts
from tests.helpers.domain_xml import NUMA_CELLS, at, hostdev, mac, nic
from tests.helpers.sysfs import Pci

KINDS: Mapping[str, Mapping[str, Pci]] = {
    "two-port NIC": hosts.TWO_PORT_NIC,
    "group with a bridge": hosts.GROUP_WITH_BRIDGE,
    "GPUs on NVLink": hosts.NVLINK_GPU,
    "virtual functions": hosts.SRIOV_NIC,
    "NVMe behind a switch": hosts.NVME_BEHIND_SWITCH,
}


@pytest.mark.parametrize("kind", KINDS)
def test_libvirt_takes_every_endpoint(host: Host, tmp_path: Path, kind: str) -> None:
    """Whole endpoints on vPHBs with a NUMA cell: libvirt takes them as they are, and moves nothing."""
    devices = KINDS[kind]
    config = Config(sysfs=hosts.write_host(tmp_path / "sys", devices), domain_dir=tmp_path, libvirt_run_dir=tmp_path)
    given = "".join(hostdev(address) for address, pci in devices.items() if pci.pci_class != 0x060400)
    bound = "<numatune><memnode cellid='0' mode='strict' nodeset='0'/></numatune>" + NUMA_CELLS
    xml = (
        "<domain type='qemu'><name>endpoints</name><memory unit='GiB'>2</memory><vcpu>4</vcpu>"
        f"{bound}<os><type arch='ppc64le' machine='pseries'>hvm</type></os><devices>{given}</devices></domain>"
    )
    result = pipeline.analyze(xml.encode(), config).apply_layout()
    data, made = result.data, result.layout
    assert made is not None
    cells = {phb.node for phb in made.phbs}
    assert cells == (
        {None, 0} if any(pci.node == 0 and pci.pci_class != 0x060400 for pci in devices.values()) else {None}
    )
    host.virsh("define", "--validate", "/dev/stdin", input=data.decode())
    try:
        found = domainxml.read(host.dumpxml("endpoints", "--inactive").encode()).guest
    finally:
        host.virsh("undefine", "endpoints")
    assert found is not None
    assert [(phb.index, phb.target, phb.node) for phb in found.phbs] == [
        (phb.index, phb.target, phb.node) for phb in made.phbs
    ]
    assert sorted(str(device.address) for device in found.devices) == sorted(map(str, made.addresses))


def test_a_guest_sees_its_numa_cell(host: Host, image: Image, root: Path) -> None:
    """A device on a vPHB of cell 1 is on node 1 to the guest, one on another vPHB is on none."""
    console = root / "numa.console"
    vphb = "<controller type='pci' index='{0}' model='pci-root'><target index='{0}'>{1}</target></controller>\n"
    devices = vphb.format(0, "") + vphb.format(1, "<node>1</node>") + nic(1, at(1, 1)) + nic(2, at(0, 1))
    numa = NUMA_CELLS.replace("memory='1' unit='GiB'", "memory='512' unit='MiB'")
    xml = guest.domain("numa", image, console, devices, memory=1024, extra=numa).replace("<vcpu>1<", "<vcpu>4<")
    data = pipeline.analyze(xml.encode(), Config()).apply_layout().data
    host.virsh("define", "--validate", "/dev/stdin", input=data.decode())
    try:
        host.virsh("start", "numa")
        seen = guest.wait_for(console)
        nodes = {n: device.numa_node for n in (1, 2) if (device := seen.by_mac(mac(n))) is not None}
        assert nodes[1] == 1
        assert nodes[2] in (-1, 0)
    finally:
        host.virsh("destroy", "numa", check=False)
        host.virsh("undefine", "numa")


def test_a_guest_sees_a_lone_function(host: Host, image: Image, root: Path) -> None:
    """Linux in a pseries guest finds function 1 of a slot without a function 0: it goes by the device tree."""
    console = root / "lone.console"
    devices = (
        "<controller type='pci' index='0' model='pci-root'/>\n<controller type='pci' index='1' model='pci-root'/>\n"
        + nic(1, at(1, 1, 1))
    )
    data = pipeline.analyze(guest.domain("lone", image, console, devices).encode(), Config()).apply_layout().data
    host.virsh("define", "/dev/stdin", input=data.decode())
    try:
        host.virsh("start", "lone")
        seen = guest.wait_for(console).by_mac(mac(1))
        assert seen is not None
        assert seen.address == "0001:00:01.1"
    finally:
        host.virsh("destroy", "lone", check=False)
        host.virsh("undefine", "lone")
