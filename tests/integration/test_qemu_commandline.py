"""QEMU as the judge of what a qemu:commandline takes: a machine that is paused before its first instruction."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.helpers.commandlines import NOT_ON_PCI, ON_PHB_0, PHB_INDEXES, SLOTS

QEMU = ("qemu-system-ppc64", "-M", "pseries,cap-htm=off", "-accel", "tcg", "-S", "-nodefaults", "-display", "none")
PHB = re.compile(r"dev: spapr-pci-host-bridge, id \"(.*)\"\n(?:.*\n)*?\s+index = (\d+)")


def ask(*words: str) -> tuple[int, str]:
    """Return QEMU's status, and its device tree or what it says instead."""
    argv = [*QEMU, "-m", "256", "-monitor", "stdio", *words]
    done = subprocess.run(
        argv, input="info qtree\nquit\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    return done.returncode, done.stdout


def slots(tree: str) -> list[str]:
    """Return slot and function of each PCI device; only those have such a property."""
    return re.findall(r"^\s+addr = ([0-9a-f]{2}\.[0-7])$", tree, re.MULTILINE)


@pytest.mark.parametrize("words", ON_PHB_0, ids=" ".join)
def test_on_phb_0(words: tuple[str, ...]) -> None:
    """QEMU gives a device without an address slot 0, which libvirt uses for none."""
    status, tree = ask(*words)
    assert status == 0, tree
    assert slots(tree) == ["00.0"]


@pytest.mark.parametrize("words", NOT_ON_PCI, ids=" ".join)
def test_not_on_pci(words: tuple[str, ...]) -> None:
    status, tree = ask(*words)
    assert status == 0, tree
    assert slots(tree) == []


@pytest.mark.parametrize(("device", "slot"), SLOTS)
def test_slots(device: str, slot: int) -> None:
    status, tree = ask("-device", device)
    assert status == 0, tree
    assert [int(found[:2], 16) for found in slots(tree)] == [slot]


@pytest.mark.parametrize(("text", "index"), PHB_INDEXES)
def test_phb_indexes(text: str, index: int | None) -> None:
    status, tree = ask("-device", f"spapr-pci-host-bridge,index={text},id=more")
    assert (status == 0) == (index is not None), tree
    assert dict(PHB.findall(tree)) == ({} if index is None else {"more": str(index), "": "0"})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("spapr-pci-host-bridge,index=2,id=pci.1", "Duplicate ID 'pci.1'"),
        ("spapr-pci-host-bridge,index=1,id=pci.2", "PHB 1 already attached"),
    ],
)
def test_clashes(more: str, says: str) -> None:
    """A vPHB of libvirt's cannot have the id, or the index, of one on the commandline."""
    status, said = ask("-device", "spapr-pci-host-bridge,index=1,id=pci.1", "-device", more)
    assert status != 0
    assert says in said
