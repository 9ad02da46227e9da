"""What a qemu:commandline takes of the PCI buses; QEMU 7.2 was asked about each case."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

import pytest
from lxml import etree

from papr_hook.domainxml.qemu_commandline import Commandline, read_commandline
from tests.helpers.commandlines import NOT_ON_PCI, ON_PHB_0, SLOTS

NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


def read(*words: str, aliases: dict[str, int] | None = None) -> Commandline:
    arguments = "".join(f"<q:arg value={quoteattr(word)}/>" for word in words)
    xml = f"<domain xmlns:q='{NAMESPACE}'><q:commandline>{arguments}</q:commandline></domain>"
    return read_commandline(etree.fromstring(xml), aliases or {})


@pytest.mark.parametrize("driver", ["spapr-pci-host-bridge", "spapr-pci-vfio-host-bridge"])
@pytest.mark.parametrize(
    ("index", "target"),
    [("1", 1), ("01", 1), ("010", 8), ("0x0a", 10), ("08", None), ("one", None), ("9" * 5000, None)],
)
def test_the_index_of_a_phb(driver: str, index: str, target: int | None) -> None:
    """QEMU reads octal and hexadecimal numbers, and starts no guest with another text."""
    found = read("-device", f"{driver},index={index},id=x")
    assert found == Commandline(targets=frozenset() if target is None else frozenset({target}))


def test_a_phb_in_json() -> None:
    found = read("-device", '{"driver": "spapr-pci-host-bridge", "index": 3, "id": "pci.2"}')
    assert found == Commandline(targets=frozenset({3}), indexes=frozenset({2}))


@pytest.mark.parametrize("device", ["spapr-pci-host-bridge,index=1,id=pci.1", "edu,bus=pci.0,id=pci.1"])
def test_the_id_of_a_vphb(device: str) -> None:
    """QEMU says "Duplicate ID 'pci.1' for device" to libvirt's own, unless that has an alias."""
    assert read("-device", device).indexes == {1}
    assert read("-device", device, aliases={"ua-mine": 1}).indexes == set()


@pytest.mark.parametrize("name", ["pci.0", "pci", "pci.01", "pci.1.0", "net0"])
def test_another_id(name: str) -> None:
    assert read("-device", f"edu,bus=pci.0,id={name}").indexes == set()


@pytest.mark.parametrize("words", ON_PHB_0, ids=" ".join)
def test_what_is_on_phb_0(words: tuple[str, ...]) -> None:
    assert read(*words) == Commandline(buses=frozenset({0}))


@pytest.mark.parametrize("words", [*NOT_ON_PCI, ("-device", "scsi-hd"), ("-device", "virtserialport")], ids=" ".join)
def test_what_is_not_on_pci(words: tuple[str, ...]) -> None:
    """Without a model, a NIC of -nic and -net is a spapr-vlan."""
    assert read(*words) == Commandline()


def test_the_last_bus() -> None:
    """A device in JSON without a bus goes to the PHB with the highest index."""
    assert read("-device", '{"driver": "edu"}') == Commandline(uses_last_bus=True)


@pytest.mark.parametrize(
    ("device", "slot"), [*SLOTS, ("edu,bus=pci.1.0,addr=3", None), ("scsi-hd,addr=3", None), ("edu,addr=x", None)]
)
def test_slots_of_phb_0(device: str, slot: int | None) -> None:
    """addr is hexadecimal in text, and slot and function in one as a number."""
    assert read("-device", device).slots == (set() if slot is None else {slot})


def test_slot_of_an_old_nic() -> None:
    assert read("-net", "nic,model=e1000,addr=0x5").slots == {5}


@pytest.mark.parametrize(
    ("bus", "index"), [("pci.3.0", 3), ("pci.3", 3), ("pci", 0), ("/x/pci.0", 0), ("ua-a.0", 7), ("usb.0", None)]
)
def test_the_index_of_a_bus(bus: str, index: int | None) -> None:
    found = read("-device", f"edu,bus={bus}", aliases={"ua-a": 7})
    assert found.buses == (set() if index is None else {index})


@pytest.mark.parametrize(
    "value",
    ["{", '{"driver": ["a"]}', '{"driver":"edu","a":' + "[" * 9999 + "]" * 9999 + "}", '{"addr":' + "9" * 9999 + "}"],
)
def test_odd_json(value: str) -> None:
    """Deep nesting and long numbers are no traceback: such a device is one of an unknown kind."""
    assert read("-device", value).targets == set()


def test_an_override() -> None:
    xml = f"<domain xmlns:q='{NAMESPACE}'><q:override><q:device alias='a'><q:frontend>"
    xml += "<q:property name='bus' type='string' value='pci.4.0'/></q:frontend></q:device></q:override></domain>"
    assert read_commandline(etree.fromstring(xml), {}).buses == {4}
