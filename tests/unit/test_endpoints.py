"""Partitionable endpoints on several kinds of host: whole or not, on which NUMA cell, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from papr_hook import pipeline
from papr_hook.config import Config, IncompletePe
from papr_hook.diagnostics import Rule
from papr_hook.errors import InputError, LayoutError
from tests.helpers import sysfs as hosts
from tests.helpers.cli import papr_hook
from tests.helpers.domain_xml import NUMA_CELLS, hostdev
from tests.helpers.sysfs import Pci

Setup = Callable[..., Config]


@pytest.fixture
def on(tmp_path: Path) -> Setup:
    """Makes a host with some devices; returns its policy."""

    def make(devices: Mapping[str, Pci], incomplete_pe: str = "warn", node_cpus: Mapping[int, str] = {}) -> Config:
        sysfs = hosts.write_host(tmp_path / "sys", devices, node_cpus)
        return Config(
            sysfs=sysfs, incomplete_pe=IncompletePe(incomplete_pe), domain_dir=tmp_path, libvirt_run_dir=tmp_path
        )

    return make


def guest(devices: str, extra: str = "", memory: int = 4) -> bytes:
    return (
        f"<domain type='kvm'><name>g</name><memory unit='GiB'>{memory}</memory>{extra}"
        "<os><type arch='ppc64le' machine='pseries'>hvm</type></os><devices>"
        f"<controller type='usb' model='none'/>{devices}<memballoon model='none'/></devices></domain>"
    ).encode()


def layout(data: bytes, config: Config) -> tuple[dict[str, str], tuple[str, ...]]:
    """Where each device of a guest is laid out, by its name, and the warnings."""
    result = pipeline.analyze(data, config).apply_layout()
    again = pipeline.analyze(result.data, config)
    assert again.apply_layout().data == result.data
    assert again.guest is not None
    places = {device.name: str(device.address) for device in again.guest.devices}
    return places, tuple(str(diagnostic) for diagnostic in result.diagnostics)


def warnings(data: bytes, config: Config) -> list[str]:
    return [str(found) for found in pipeline.analyze(data, config).violations() if found.rule is Rule.ISOLATION]


def breaks_isolation(data: bytes, config: Config) -> bool:
    """Whether check reports an error of the isolation rule."""
    found = pipeline.analyze(data, config).violations()
    return any(diagnostic.is_error and diagnostic.rule is Rule.ISOLATION for diagnostic in found)


def test_a_whole_endpoint(on: Setup) -> None:
    """Both ports of a NIC go to one vPHB, and nothing is said: the bridge above is not of the group."""
    config = on(hosts.TWO_PORT_NIC)
    places, said = layout(guest(hostdev("0001:01:00.0") + hostdev("0001:01:00.1")), config)
    assert places == {"<hostdev> 0001:01:00.0": "0000:01:01.0", "<hostdev> 0001:01:00.1": "0000:01:02.0"}
    assert said == ()


def test_an_endpoint_in_part_is_named(on: Setup) -> None:
    """The missing port is named with its driver, as a warning."""
    data = guest(hostdev("0001:01:00.0"))
    config = on(hosts.TWO_PORT_NIC)
    text = (
        "is in IOMMU group 5, but these members are not passed through: 0001:01:00.1 (driver e1000e); QEMU refuses to "
        "start: set incomplete_pe = add, or run 'virsh nodedev-detach pci_0001_01_00_1'"
    )
    warning = f"warning: <hostdev> 0001:01:00.0 {text} [incomplete-endpoint]"
    assert layout(data, config)[1] == (warning,)
    assert warnings(data, config) == [warning]


@pytest.mark.parametrize("driver", [None, "vfio-pci", "mlx5_vfio_pci", "pci-stub"])
def test_a_missing_member_without_a_host_driver(on: Setup, driver: str | None) -> None:
    """QEMU takes the group then, so the warning has no remedy."""
    config = on({**hosts.TWO_PORT_NIC, "0001:01:00.1": Pci(5, driver=driver, behind="0001:00:00.0")})
    (said,) = layout(guest(hostdev("0001:01:00.0")), config)[1]
    assert "not passed through" in said and "QEMU" not in said


def test_an_endpoint_in_part_is_refused(on: Setup) -> None:
    """incomplete_pe = refuse: it breaks the isolation rule, and cannot be laid out."""
    data = guest(hostdev("0001:01:00.0"))
    config = on(hosts.TWO_PORT_NIC, "refuse")
    assert breaks_isolation(data, config)
    with pytest.raises(LayoutError, match=r"0001:01:00\.1 \(driver e1000e\)"):
        pipeline.analyze(data, config).apply_layout()


def test_an_endpoint_is_completed(on: Setup) -> None:
    """incomplete_pe = add: the missing function is added, managed, beside the first; the bridge of the group never."""
    data = guest(hostdev("0005:90:01.0") + "<rng model='virtio'><backend model='random'/></rng>")
    config = on(hosts.GROUP_WITH_BRIDGE, "add")
    assert breaks_isolation(data, config)
    places, said = layout(data, config)
    assert places == {
        "<hostdev> 0005:90:01.0": "0000:01:01.0",
        "<hostdev> 0005:90:01.1": "0000:01:02.0",
        "<hostdev> 0005:90:01.2": "0000:01:03.0",
        "<rng> virtio": "0000:02:01.0",
    }
    assert list(places) == sorted(places)
    assert said == ()
    assert pipeline.analyze(data, config).apply_layout().data.count(b"managed='yes'") == 3


def test_an_unassigned_member_is_not_missing(on: Setup) -> None:
    """A device that the definition takes from the host without giving it to the guest makes the endpoint whole."""
    data = guest(hostdev("0001:01:00.0") + hostdev("0001:01:00.1", "<address type='unassigned'/>"))
    assert warnings(data, on(hosts.TWO_PORT_NIC)) == []


def test_a_gpu_goes_with_its_nvlink_bridges(on: Setup) -> None:
    """NVLink bridges are not bridges between buses: they are missing, and are added."""
    data = guest(hostdev("0004:04:00.0"))
    config = on(hosts.NVLINK_GPU, "add")
    places, _ = layout(data, config)
    assert sorted(places) == [
        "<hostdev> 0004:04:00.0", "<hostdev> 0006:00:00.0", "<hostdev> 0006:00:00.1"
    ]  # fmt: skip
    assert {place[:7] for place in places.values()} == {"0000:01"}


def test_virtual_functions_are_endpoints_of_their_own(on: Setup) -> None:
    """Each virtual function has a vPHB, and show says whose function it is."""
    config = on(hosts.SRIOV_NIC)
    data = guest(hostdev("0003:01:00.2") + hostdev("0003:01:00.3"))
    places, said = layout(data, config)
    assert sorted(places.values()) == ["0000:01:01.0", "0000:02:01.0"]
    assert said == ()
    shown = papr_hook("show", "--sysfs", str(config.sysfs), stdin=data).out
    assert "<hostdev> 0003:01:00.3  driver vfio-pci, node 0, function of 0003:01:00.0" in shown


def test_nvme_behind_a_switch(on: Setup) -> None:
    """The switch's ports are groups of their own, and nothing is missing."""
    assert layout(guest(hostdev("0002:03:00.0")), on(hosts.NVME_BEHIND_SWITCH))[1] == ()


def test_a_device_that_is_not_here(on: Setup) -> None:
    """A definition may be meant for another host: the device is placed alone, with a warning."""
    places, said = layout(guest(hostdev("0009:01:00.0") + hostdev("0009:01:00.1")), on(hosts.TWO_PORT_NIC))
    assert sorted(places.values()) == ["0000:01:01.0", "0000:02:01.0"]
    assert said == tuple(
        f"warning: <hostdev> 0009:01:00.{n} is not on this host, so its IOMMU group is unknown [unknown-hostdev]"
        for n in (0, 1)
    )


def test_a_device_in_no_group(on: Setup) -> None:
    """A device that is here, but in no IOMMU group, is said to be."""
    said = layout(guest(hostdev("0001:01:00.0")), on({"0001:01:00.0": Pci(None)}))[1]
    assert said == ("warning: <hostdev> 0001:01:00.0 is in no IOMMU group on this host [unknown-hostdev]",)


@pytest.mark.parametrize(
    ("bound", "cell"),
    [
        ("<numatune><memnode cellid='1' nodeset='8'/></numatune>", 1),
        ("<numatune><memnode cellid='0' nodeset='8'/><memnode cellid='1' nodeset='0'/></numatune>", 0),
        ("<numatune><memnode cellid='1' nodeset='0,8'/></numatune>", None),
        ("<numatune><memnode cellid='0' nodeset='8'/><memnode cellid='1' nodeset='8'/></numatune>", None),
        ("<cputune><vcpupin vcpu='2' cpuset='80-83'/><vcpupin vcpu='3' cpuset='84'/></cputune>", 1),
        ("<cputune><vcpupin vcpu='2' cpuset='80-83'/></cputune>", None),
        ("<cputune><vcpupin vcpu='2' cpuset='80'/><vcpupin vcpu='3' cpuset='0'/></cputune>", None),
        ("", None),
    ],
)
def test_an_endpoint_is_on_its_numa_cell(on: Setup, bound: str, cell: int | None) -> None:
    """The vPHB of an endpoint has the cell that is bound to the device's host node, where that is beyond doubt."""
    config = on(hosts.NVME_BEHIND_SWITCH, node_cpus={0: "0-79", 8: "80-159"})
    data = guest(hostdev("0002:03:00.0") + "<rng model='virtio'><backend model='random'/></rng>", bound + NUMA_CELLS)
    result = pipeline.analyze(data, config).apply_layout()
    assert result.layout is not None
    cells = {phb.index: phb.node for phb in result.layout.phbs if phb.node is not None}
    assert cells == ({} if cell is None else {1: cell})
    assert pipeline.analyze(result.data, config).apply_layout().data == result.data


def test_a_cell_that_a_person_wrote_stays(on: Setup) -> None:
    """The definition counts more than the host."""
    root = "<controller type='pci' index='{0}' model='pci-root'><target index='{0}'>{1}</target></controller>"
    placed = hostdev("0002:03:00.0", "<address type='pci' bus='1' slot='1'/>")
    data = guest(
        root.format(0, "") + root.format(1, "<node>0</node>") + placed,
        "<numatune><memnode cellid='1' nodeset='8'/></numatune>" + NUMA_CELLS,
    )
    made = pipeline.analyze(data, on(hosts.NVME_BEHIND_SWITCH)).apply_layout().layout
    assert made is not None
    assert made.phbs[1].node == 0


def test_vphb_0_has_no_cell(on: Setup) -> None:
    """libvirt refuses a NUMA node on PHB 0: an endpoint that stays there has none."""
    placed = hostdev("0002:03:00.0", "<address type='pci' bus='0' slot='1'/>")
    root = "<controller type='pci' index='0' model='pci-root'><target index='0'/></controller>"
    data = guest(root + placed, "<numatune><memnode cellid='1' nodeset='8'/></numatune>" + NUMA_CELLS)
    made = pipeline.analyze(data, on(hosts.NVME_BEHIND_SWITCH)).apply_layout().layout
    assert made is not None
    assert all(phb.node is None for phb in made.phbs)


def test_a_sysfs_in_disorder(tmp_path: Path) -> None:
    """Loops, missing links, files that cannot be read and groups that are no numbers: what can be known is."""
    sysfs = hosts.write_host(tmp_path / "sys", hosts.TWO_PORT_NIC)
    hosts.disorder(sysfs / "bus/pci/devices/0001:01:00.0")
    other = sysfs / "bus/pci/devices/0001:01:00.1"
    (other / "iommu_group").unlink()
    (sysfs / "kernel/iommu_groups/five").mkdir()
    (other / "iommu_group").symlink_to(sysfs / "kernel/iommu_groups/five")
    config = Config(sysfs=sysfs, domain_dir=tmp_path, libvirt_run_dir=tmp_path)
    places, said = layout(guest(hostdev("0001:01:00.0") + hostdev("0001:01:00.1")), config)
    assert sorted(places.values()) == ["0000:01:01.0", "0000:02:01.0"]
    assert len(said) == 2
    assert all("is in no IOMMU group on this host" in line for line in said)


def test_one_host_device_twice(on: Setup) -> None:
    """A host device can be in a guest once; the error names it."""
    with pytest.raises(InputError, match=r"host device 0001:01:00\.0 is passed through twice"):
        pipeline.analyze(guest(hostdev("0001:01:00.0") + hostdev("0001:01:00.0")), on(hosts.TWO_PORT_NIC))


@pytest.mark.parametrize("source", ["<source/>", ""])
def test_a_hostdev_without_a_source(on: Setup, source: str) -> None:
    """libvirt says what it thinks of it; it gets a vPHB, as any device would."""
    data = guest(f"<hostdev mode='subsystem' type='pci'>{source}</hostdev>")
    places, said = layout(data, on(hosts.TWO_PORT_NIC))
    assert list(places.values()) == ["0000:01:01.0"]
    assert said == ("warning: <hostdev> #1 names no host device [unknown-hostdev]",)


def test_a_multifunction_set_without_function_0(on: Setup) -> None:
    """Functions of a slot whose function 0 is missing are a warning where they stay."""
    root = "<controller type='pci' index='{0}' model='pci-root'><target index='{0}'/></controller>"
    placed = hostdev("0001:01:00.0", "<address type='pci' bus='1' slot='1' function='1'/>")
    second = hostdev("0001:01:00.1", "<address type='pci' bus='1' slot='1' function='2'/>")
    data = guest("".join(root.format(n) for n in range(6)) + placed + second)
    said = warnings(data, on(hosts.TWO_PORT_NIC))
    assert said == ["warning: <hostdev> 0001:01:00.0 is function 1 of a slot that has no function 0 [no-function-0]"]
