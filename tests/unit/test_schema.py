"""The contract as a schema: each of its assertions says what it should, and outputs satisfy it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from papr_hook import pipeline, schema
from papr_hook.config import Config
from papr_hook.errors import InputError
from tests.helpers.paths import CORPUS, NO_CORPUS

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"


def pci_root(index: int, more: str = "") -> str:
    """A vPHB."""
    return (
        f"<controller type='pci' index='{index}' model='pci-root'><target index='{index}'>{more}</target></controller>"
    )


def at(bus: int, slot: int = 1, function: int = 0) -> str:
    """A PCI address as libvirt writes it."""
    return f"<address type='pci' domain='0x0000' bus='{bus:#04x}' slot='{slot:#04x}' function='{function:#x}'/>"


def disk(number: int, address: str) -> str:
    """A virtio disk."""
    return f"<disk type='block'><source dev='/dev/d{number}'/><target dev='d{number}' bus='virtio'/>{address}</disk>"


def host_device(slot: int, address: str) -> str:
    """A device of the host."""
    return (
        "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
        f"<address domain='0' bus='5' slot='{slot}' function='0'/></source>{address}</hostdev>"
    )


def domain(devices: str, outside: str = "") -> str:
    """A definition of a pseries guest."""
    return f"""\
<domain type='kvm' xmlns:qemu='{QEMU}'><name>g</name>
<os><type arch='ppc64le' machine='pseries'>hvm</type></os>
<devices>
{devices}
</devices>{outside}</domain>
"""


BASE = domain(
    "\n".join(
        [
            *map(pci_root, range(14)),
            f"<controller type='usb' index='0' model='qemu-xhci'>{at(1)}</controller>",
            f"<controller type='usb' index='1' model='ich9-ehci1'>{at(2, 1, 7)}</controller>",
            f"<controller type='usb' index='1' model='ich9-uhci1'>{at(2, 1, 0)}</controller>",
            f"<controller type='virtio-serial' index='0'>{at(3)}</controller>",
            f"<controller type='sata' index='0'>{at(4)}</controller>",
            "<channel type='pty'><target type='virtio'/></channel>",
            "<disk type='block'><source dev='/dev/sda'/><target dev='sda' bus='sata'/></disk>",
            disk(1, at(5)),
            host_device(1, at(6)),
            host_device(2, at(6, 2)),
            f"<memballoon model='virtio'>{at(7)}</memballoon>",
            f"<graphics type='vnc'/><video><model type='vga'/>{at(8)}</video>",
            "<tpm model='tpm-spapr'/><tall:story xmlns:tall='urn:tall'><disk/></tall:story>",
        ]
    ),
    "<qemu:commandline><qemu:arg value='-device'/><qemu:arg value='edu,bus=pci.9.0'/></qemu:commandline>",
)
SHARING = domain(
    "\n".join(
        [
            *map(pci_root, range(31)),
            "<controller type='usb' index='0' model='none'/><memballoon model='none'/>",
            *(disk(n, at(n % 30 + 1, n // 30 + 1)) for n in range(70)),
        ]
    )
)
FEW = domain(
    "\n".join(
        [
            *map(pci_root, range(4)),
            "<controller type='usb' index='0' model='none'/><memballoon model='none'/>",
            disk(1, at(1)),
        ]
    )
)

MUTATIONS = {
    "pci-root-missing": (BASE, "index='13' model", "index='14' model"),
    "target-index.unique": (BASE, "<target index='13'>", "<target index='0xC'>"),
    "target-index.zero": (BASE, "<target index='0'>", "<target index='20'>"),
    "pci-root-only": (BASE, "index='13' model='pci-root'", "index='13' model='pci-bridge'"),
    "target-index": (BASE, "<target index='13'>", "<target>"),
    "target-index.range": (BASE, "<target index='13'>", "<target index='31'>"),
    "no-address": (FEW, at(1), ""),
    "pci-root-missing.bus": (BASE, at(5), at(14)),
    "same-address": (BASE, at(6, 2), at(6)),
    "bad-address.domain": (FEW, "domain='0x0000'", "domain='0x0001'"),
    "no-address.memballoon": (FEW, "<memballoon model='none'/>", ""),
    "no-address.sata": (BASE, "dev='sda'", "dev='sdg'"),
    "bad-address.slot": (FEW, at(1), at(1, 0)),
    "no-address.usb": (BASE, "type='usb' index='0'", "type='usb' index='2'"),
    "no-address.video": (FEW, "<memballoon", "<graphics type='vnc'/><memballoon"),
    "no-address.virtio-serial": (BASE, "type='virtio-serial' index='0'", "type='virtio-serial' index='1'"),
    "not-isolated": (FEW, disk(1, at(1)), disk(1, at(1)) + disk(2, at(1, 2))),
    "commandline-bus": (BASE, "pci.9.0", "pci.5.0"),
    "split-slot": (BASE, at(2, 1, 7), at(10, 1, 7)),
    "not-isolated.endpoint": (BASE, at(5), at(6, 3)),
    "too-many-phbs": (
        SHARING,
        pci_root(30),
        pci_root(30) + pci_root(31).replace("target index='31'", "target index='30'"),
    ),
    "uneven-sharing": (SHARING, at(9, 2), at(8, 9)),
}
"""For each assertion a definition that complies, and what to put in what's place to break it."""


def broken(text: str) -> list[str]:
    """The names of what the schema finds in a definition."""
    return [found.name.value for found in schema.violations(text.encode())]


@pytest.mark.parametrize("text", [BASE, SHARING, FEW], ids=["base", "sharing", "few"])
def test_what_complies_satisfies_all(text: str) -> None:
    assert broken(text) == []


@pytest.mark.parametrize("name", schema.assertions())
def test_each_assertion_fails_alone(name: str) -> None:
    text, old, new = MUTATIONS[name]
    assert text.count(old) >= 1
    (found,) = schema.violations(text.replace(old, new, 1).encode())
    assert found.name is schema.name_of(name)
    assert found.text == schema.assertions()[name]


def test_the_mutations_are_of_assertions_that_there_are() -> None:
    assert set(MUTATIONS) == set(schema.assertions())


@pytest.mark.parametrize(
    "device",
    [
        "<disk type='file'><target dev='vda'/></disk>",
        "<disk type='file'><target dev='sda' bus='virtio'/></disk>",
        "<interface type='user'/>",
        "<interface type='user'><model type='e1000e'/></interface>",
        "<interface type='hostdev'><source><address type='pci' bus='1'/></source></interface>",
        "<controller type='usb' index='1'/>",
        "<controller type='usb' index='1' model='nec-xhci'/>",
        "<controller type='scsi' model='virtio-scsi'/>",
        "<controller type='virtio-serial'/>",
        "<controller type='sata'/>",
        "<controller type='nvme'/>",
        "<hostdev mode='subsystem' type='pci'><source><address bus='1'/></source></hostdev>",
        "<hostdev mode='subsystem' type='scsi_host'/>",
        "<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>",
        "<filesystem><driver type='virtiofs'/></filesystem>",
        "<memballoon model='virtio-non-transitional'/>",
        "<rng model='virtio'/>",
        "<vsock model='virtio'/>",
        "<video><model type='bochs'/></video>",
        "<video/>",
        *(f"<sound model='{model}'/>" for model in ("es1370", "ac97", "ich6", "ich9", "virtio")),
        "<input type='tablet' bus='virtio'/>",
        "<input type='passthrough'/>",
        "<watchdog model='i6300esb'/>",
        "<shmem name='s'/>",
        "<crypto model='virtio'/>",
        "<serial type='pty'><target type='pci-serial'/></serial>",
        "<memory model='virtio-mem'/>",
        "<memory model='virtio-pmem'/>",
    ],
)
def test_a_device_on_pci_needs_an_address(device: str) -> None:
    assert broken(FEW.replace("<disk", f"{device}<disk")) == ["no-address"]


@pytest.mark.parametrize(
    "device",
    [
        "<disk type='file'><target dev='vda' bus='scsi'/></disk>",
        "<disk type='file'><target dev='sdb' bus='usb'/></disk>",
        "<interface type='user'><model type='spapr-vlan'/></interface>",
        "<interface type='user'><model type='usb-net'/></interface>",
        "<interface type='hostdev'><source><address type='usb' bus='1'/></source></interface>",
        "<controller type='usb' index='1' model='qusb2'/>",
        "<controller type='usb' index='1'><address type='spapr-vio'/></controller>",
        "<controller type='scsi'/>",
        "<controller type='scsi' model='ibmvscsi'/>",
        "<controller type='ccid'/>",
        "<hostdev mode='subsystem' type='pci'><address type='unassigned'/></hostdev>",
        "<hostdev mode='subsystem' type='usb'/>",
        "<hostdev mode='subsystem' type='scsi'/>",
        "<hostdev mode='subsystem' type='mdev' model='vfio-ap'/>",
        "<filesystem><driver type='mtp'/></filesystem>",
        "<memballoon model='none'/>",
        "<video><model type='ramfb'/></video>",
        "<sound model='usb'/>",
        "<input type='tablet' bus='usb'/>",
        "<serial type='pty'><target type='spapr-vio-serial'/></serial>",
        "<memory model='dimm'/>",
        "<tpm/>",
        "<panic model='pseries'/>",
    ],
)
def test_a_device_elsewhere_needs_none(device: str) -> None:
    assert broken(FEW.replace("<disk", f"{device}<disk")) == []


@pytest.mark.parametrize("number", ["0x1", "0X01", "1", "01", "+1", " 1", "0x0001", " +01"])
def test_numbers_are_read_as_libvirt_reads_them(number: str) -> None:
    assert broken(FEW.replace("bus='0x01'", f"bus='{number}'")) == []
    shared = FEW.replace("</devices>", f"{disk(2, at(1, 2))}</devices>")
    assert broken(shared.replace("bus='0x01'", f"bus='{number}'", 1)) == ["not-isolated"]


@pytest.mark.parametrize("number", ["0x4", "4", "04", "0x10", "020", "16", "255", "0xff", "0377"])
def test_a_bus_beyond_the_last_is_one_in_any_base(number: str) -> None:
    assert broken(FEW.replace("bus='0x01'", f"bus='{number}'")) == ["pci-root-missing"]


def test_controllers_without_an_index_count_in_their_order() -> None:
    assert broken(FEW.replace("type='pci' index='2'", "type='pci'")) == []


def test_the_line_and_the_path_are_those_of_the_device() -> None:
    (failed,) = schema.violations(FEW.replace(at(1), "").encode())
    assert failed.device == "/domain/devices/disk:"
    assert failed.line == FEW.splitlines().index(disk(1, at(1))) + 1
    assert failed.text == schema.assertions()["no-address"]
    assert str(failed).endswith("[no-address]")


def test_every_assertion_has_a_sentence() -> None:
    assert all(text.endswith(".") for text in schema.assertions().values())


def test_hints_of_a_document_are_not_followed() -> None:
    hints = (
        "<domain xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'"
        " xsi:noNamespaceSchemaLocation='file:///nowhere.xsd' xsi:type='x'"
    )
    assert broken(FEW.replace("<domain", hints)) == []


def test_another_document_is_an_input_error() -> None:
    with pytest.raises(InputError, match="is not domain XML"):
        schema.violations(b"<network/>")


def test_without_xmlschema_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xmlschema", None)
    schema._schema.cache_clear()
    with pytest.raises(schema.SchemaError, match="^.*install python3-xmlschema$"):
        schema.violations(FEW.encode())


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"{NO_CORPUS} in {CORPUS}")
@pytest.mark.parametrize(
    "file", sorted((CORPUS / "pseries").glob("*.xml")) if CORPUS.is_dir() else [], ids=lambda file: file.stem
)
def test_what_a_real_definition_becomes_satisfies_all(file: Path) -> None:
    result = pipeline.analyze(file.read_bytes(), Config(), "ppc64le").apply_layout()
    assert result.layout is None or schema.violations(result.data) == ()
