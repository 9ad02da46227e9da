"""NUMA cells, their host bindings, and memory."""

from __future__ import annotations

import pytest
from lxml import etree

from papr_hook.domainxml.numa import needs_vfio, read_cells, read_memory, read_ranges
from papr_hook.errors import InputError
from papr_hook.model import Cell, Memory
from papr_hook.ranges import Ranges


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("", ()), ("3", ((3, 3),)), ("0-3,^2,8", ((0, 1), (3, 3), (8, 8))), ("^2,0-3", ((0, 3),)),
        (" 1 , 2 ", ((1, 2),)), ("0-65535", ((0, 65535),)), ("0-65535,^0,^65535", ((1, 65534),)), ("5-4", ()),
    ],
)  # fmt: skip
def test_a_set_of_numbers(text: str, spans: tuple[tuple[int, int], ...]) -> None:
    element = etree.Element("a")
    element.set("cpuset", text)
    assert read_ranges(element, "cpuset").spans == spans


@pytest.mark.parametrize("text", ["x", "1-", "-1", "0-65536", "9" * 5000, "1-2-3", "^", "\u00b2"])
def test_not_a_set(text: str) -> None:
    element = etree.Element("a")
    element.set("cpuset", text)
    with pytest.raises(InputError, match="is not a set of numbers up to 65535"):
        read_ranges(element, "cpuset")


def domain(inside: str) -> etree._Element:
    return etree.fromstring(f"<domain>{inside}</domain>")


def test_cells() -> None:
    """A cell has host processors only if all of its vCPUs are pinned."""
    root = domain(
        "<numatune><memnode cellid='1' nodeset='8'/></numatune><cputune><vcpupin vcpu='0' cpuset='0-3'/>"
        "<vcpupin vcpu='1' cpuset='4-7,^5'/><vcpupin vcpu='2' cpuset='9'/><vcpupin vcpu='99' cpuset='9'/></cputune>"
        "<cpu><numa><cell cpus='0-1'/><cell id='1' cpus='2-3'/></numa></cpu>"
    )
    assert read_cells(root) == (
        Cell(0, Ranges(), Ranges(((0, 4), (6, 7)))),
        Cell(1, Ranges.single(8), Ranges()),
    )


def test_ranges_stay_ranges() -> None:
    """A hundred pins of all processors once took 607 MiB."""
    pins = "".join(f"<vcpupin vcpu='{n}' cpuset='0-65535'/>" for n in range(100))
    cells = read_cells(domain(f"<cputune>{pins}</cputune><cpu><numa><cell cpus='0-99'/></numa></cpu>"))
    assert cells == (Cell(0, Ranges(), Ranges(((0, 65535),))),)


@pytest.mark.parametrize(
    ("inside", "memory"),
    [
        ("<memory>5</memory>", Memory(5, 5)),
        ("<memory unit='bytes'>1025</memory>", Memory(2, 2)),
        ("<memory unit='GiB'>1</memory><maxMemory slots='1' unit='GiB'>2</maxMemory>", Memory(1048576, 2097152)),
        ("<memory unit='MB'>1</memory>", Memory(977, 977)),
        ("<memory>5</memory><memtune><hard_limit>9</hard_limit></memtune>", Memory(5, 5, 9)),
        ("<memory>5</memory><memoryBacking><locked/></memoryBacking>", Memory(5, 5, None, True)),
        ("<memory unit='acre'>1</memory>", Memory()),
        ("<memory>" + "9" * 5000 + "</memory>", Memory()),
        ("", Memory()),
    ],
)
def test_memory(inside: str, memory: Memory) -> None:
    assert read_memory(domain(inside)) == memory


@pytest.mark.parametrize(
    ("device", "needs"),
    [
        ("<hostdev type='pci'/>", True), ("<hostdev type='mdev'/>", True), ("<hostdev type='usb'/>", False),
        ("<interface type='hostdev'/>", True), ("<interface type='vdpa'/>", True), ("<interface type='user'/>", False),
        ("<disk type='nvme'/>", True), ("<disk type='file'/>", False),
    ],
)  # fmt: skip
def test_vfio(device: str, needs: bool) -> None:
    assert needs_vfio([etree.fromstring(device)]) == needs
