"""The locked-memory limit, against libvirt's formula and the figures of its own tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from papr_hook.layout import memlock
from papr_hook.model import Device, Guest, HostDevice, HostTopology, Memory, PciAddress, Phb
from tests.helpers.cli import papr_hook

GIB = 1024 * 1024
SOURCE = PciAddress(1, 1, 0, 0)
HOSTDEV = Device("<hostdev>", passthrough=True, source=SOURCE)
HERE = HostTopology(devices={SOURCE: HostDevice(SOURCE)})
NVLINK2 = HostTopology(devices={SOURCE: HostDevice(SOURCE, nvlink2=True)})
ONE_GIB = Memory(GIB, GIB)


def guest(vfio: bool = False, memory: Memory = ONE_GIB, is_kvm: bool = True) -> Guest:
    return Guest("g", devices=(HOSTDEV,) if vfio else (), vfio=vfio, memory=memory, is_kvm=is_kvm)


@pytest.mark.parametrize(
    ("one", "phbs", "limit"),
    [
        (guest(), 1, 20 * 1024**2),
        (guest(vfio=True), 2, 4320133120),
        (guest(memory=Memory(GIB, GIB, hard_limit=2 * GIB)), 1, 2147483648),
        (guest(vfio=True, memory=Memory(GIB, GIB, hard_limit=2 * GIB, locked=True)), 1, 2147483648),
    ],
)
def test_figures_of_libvirts_tests(one: Guest, phbs: int, limit: int) -> None:
    """In bytes, from tests/qemumemlocktest.c: pseries-kvm, -hostdev, -hardlimit, -hardlimit+locked+hostdev."""
    assert memlock.limit(one, HERE, phbs) == limit // 1024


def test_kvm() -> None:
    """Each PHB adds 4 MiB; with VFIO also memory/512 or 2 GiB, and more with NVLink2."""
    memory = Memory(64 * GIB, 64 * GIB)
    base = 64 * GIB // 128 + 5 * 4096 + 8192
    assert memlock.limit(guest(memory=memory), HERE, 5) == base
    assert memlock.limit(guest(True, memory), HERE, 5) == base + 64 * GIB + 5 * 64 * GIB // 512 + 8192
    assert memlock.limit(guest(True, memory), NVLINK2, 5) == base + 64 * GIB + 5 * 128 * 1024 * GIB // 512 + 8192
    grows = Memory(GIB, 128 * GIB)
    assert memlock.limit(guest(memory=grows), HERE, 1) == GIB + 4096 + 8192


def test_tcg() -> None:
    """TCG locks nothing by itself; with VFIO libvirt allows the memory and 1 GiB, whatever the PHBs."""
    assert memlock.limit(guest(is_kvm=False), HERE, 5) is None
    assert memlock.limit(guest(True, Memory(GIB // 2, GIB // 2), is_kvm=False), HERE, 31) == 1536 * 1024
    assert memlock.cost(guest(is_kvm=False), HERE, 5) == "locked-memory limit none"


@pytest.mark.parametrize("is_kvm", [True, False])
def test_hard_limit_and_locked(is_kvm: bool) -> None:
    """hard_limit comes first, whatever else is asked for; <locked/> alone removes the limit."""
    locked = guest(memory=Memory(GIB, GIB, locked=True), is_kvm=is_kvm)
    assert memlock.cost(locked, HERE, 5) == "locked-memory limit unlimited"
    limited = guest(memory=Memory(GIB, GIB, 3 * GIB, True), is_kvm=is_kvm)
    assert memlock.cost(limited, HERE, 5) == "locked-memory limit 3072 MiB"
    unset = guest(memory=Memory(GIB, GIB, memlock.UNLIMITED), is_kvm=True)
    assert memlock.limit(unset, HERE, 1) == 20 * 1024


def test_cost_of_more_phbs() -> None:
    one = replace(guest(vfio=True), phbs=(Phb(0), Phb(1)))
    assert memlock.cost(one, HERE, 6) == "locked-memory limit 4120 MiB before the layout, 12328 MiB after it"


def test_a_hard_limit_that_is_too_low() -> None:
    """Only where VFIO needs the memory, and only if it is exceeded."""
    memory = Memory(4 * GIB, 4 * GIB, hard_limit=10 * GIB)
    found = memlock.over_hard_limit(guest(True, memory), HERE, 5)
    assert found is not None
    assert "5 vPHBs need 10300 MiB of locked memory, and memtune's hard_limit is 10240 MiB" in str(found)
    assert memlock.over_hard_limit(guest(True, memory), HERE, 4) is None
    assert memlock.over_hard_limit(guest(False, memory), HERE, 31) is None
    assert memlock.over_hard_limit(guest(True, memory, is_kvm=False), HERE, 31) is None


DOMAIN = """<domain type='{}'><memory unit='GiB'>4</memory>{}<os><type arch='ppc64le' machine='pseries'>hvm</type></os>
<devices><controller type='usb' model='none'/><memballoon model='none'/>{}</devices></domain>"""
VFIO = (
    "<hostdev mode='subsystem' type='pci'><source>"
    "<address domain='9' bus='1' slot='0' function='0'/></source></hostdev>"
)


@pytest.mark.parametrize(
    ("kind", "memory", "devices", "says"),
    [
        ("kvm", "", VFIO, "locked-memory limit 4156 MiB before the layout, 10300 MiB after it"),
        ("qemu", "", VFIO, "locked-memory limit 5120 MiB"),
        ("qemu", "", "", "locked-memory limit none"),
        ("kvm", "<memoryBacking><locked/></memoryBacking>", "", "locked-memory limit unlimited"),
        ("kvm", "<memtune><hard_limit unit='GiB'>10</hard_limit></memtune>", VFIO, "locked-memory limit 10240 MiB"),
    ],
)
def test_reported_by_layout(kind: str, memory: str, devices: str, says: str) -> None:
    ran = papr_hook("layout", "-v", stdin=DOMAIN.format(kind, memory, devices).encode())
    assert says in ran.err.splitlines()[-1]
    assert ("hard_limit is" in ran.err) == ("hard_limit" in memory)
