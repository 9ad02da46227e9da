"""Which elements of a definition sit on PCI in a pseries guest.

The models are those of libvirt's domain schema (src/conf/schemas/domaincommon.rng) and of
qemuDomainDeviceCalculatePCIConnectFlags in its src/qemu/qemu_domain_address.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lxml import etree

from ..errors import InputError
from .values import line_of

VIRTIO = frozenset({"virtio", "virtio-transitional", "virtio-non-transitional"})
COMPANIONS = {"ich9-ehci1": 7, "ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2}
"""The functions of the USB 2 controllers that share a slot."""

Reader = Callable[[etree._Element], "str | None"]


@dataclass(frozen=True)
class Rule:
    """When elements of one kind sit on PCI.

    read: gets the model, None where the element names none; on, off: the models that do and do
    not, on=None for all that are not off; absent: what holds without a model.
    """

    read: Reader
    on: frozenset[str] | None
    off: frozenset[str] = frozenset()
    absent: bool = True


def attribute(name: str) -> Reader:
    """A reader of an attribute of the element."""
    return lambda element: element.get(name)


def child(tag: str, name: str) -> Reader:
    """A reader of an attribute of a child element."""

    def read(element: etree._Element) -> str | None:
        found = element.find(tag)
        return found.get(name) if found is not None else None

    return read


def disk_bus(disk: etree._Element) -> str | None:
    """The bus of a disk; without one its target's name tells, as in libvirt."""
    target = disk.find("target")
    if target is None:
        return None
    name = target.get("dev", "")
    prefixes = {"vd": "virtio", "sd": "scsi", "hd": "ide", "xvd": "xen", "ubd": "uml"}
    implied = next((bus for start, bus in prefixes.items() if name.startswith(start)), None)
    return target.get("bus") or implied


def input_bus(element: etree._Element) -> str | None:
    """The bus of an input device; libvirt puts a passed-through one on virtio."""
    implied = "virtio" if element.get("type") == "passthrough" else None
    return element.get("bus") or implied


def _models(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _none(element: etree._Element) -> None:
    return None


ALWAYS = Rule(_none, None)
NEVER = Rule(_none, None, absent=False)
_MODEL = attribute("model")

RULES = {
    "disk": Rule(disk_bus, _models("virtio"), _models("ide fdc scsi xen usb uml sata sd none"), False),
    "interface": Rule(child("model", "type"), None, _models("usb-net spapr-vlan")),
    "controller usb": Rule(
        _MODEL,
        _models("piix3-uhci piix4-uhci ehci vt82c686b-uhci pci-ohci nec-xhci qemu-xhci") | frozenset(COMPANIONS),
        _models("none qusb1 qusb2"),
    ),
    "controller scsi": Rule(
        _MODEL,
        _models("virtio-scsi buslogic lsilogic lsisas1068 vmpvscsi lsisas1078 dc390 am53c974")
        | _models("virtio-transitional virtio-non-transitional"),
        _models("auto ibmvscsi ncr53c90"),
        False,
    ),
    "controller virtio-serial": Rule(_MODEL, VIRTIO),
    "controller sata": ALWAYS,
    "controller nvme": ALWAYS,
    "controller ide": NEVER,
    "controller fdc": NEVER,
    "controller ccid": NEVER,
    "controller xenbus": NEVER,
    "controller isa": NEVER,
    "hostdev pci": ALWAYS,
    "hostdev scsi_host": ALWAYS,
    "hostdev mdev": Rule(_MODEL, _models("vfio-pci"), _models("vfio-ccw vfio-ap")),
    "hostdev usb": NEVER,
    "hostdev scsi": NEVER,
    "filesystem": Rule(child("driver", "type"), None, _models("mtp loop nbd ploop")),
    "memballoon": Rule(_MODEL, VIRTIO, _models("none xen")),
    "rng": Rule(_MODEL, VIRTIO),
    "vsock": Rule(_MODEL, VIRTIO),
    "video": Rule(
        child("model", "type"),
        _models("vga cirrus vmvga xen vbox qxl parallels bochs virtio"),
        _models("none ramfb gop"),
    ),
    "sound": Rule(_MODEL, _models("es1370 ac97 ich6 ich9 virtio"), _models("usb sb16 pcspk ich7"), False),
    "input": Rule(input_bus, VIRTIO, _models("usb ps2 xen parallels none"), False),
    "watchdog": Rule(_MODEL, _models("i6300esb"), _models("ib700 diag288 itco")),
    "shmem": ALWAYS,
    "crypto": ALWAYS,
    "serial": Rule(
        child("target", "type"),
        _models("pci-serial"),
        _models("isa-serial usb-serial spapr-vio-serial system-serial sclp-serial isa-debug none"),
        False,
    ),
    "memory": Rule(_MODEL, _models("virtio-mem virtio-pmem"), _models("dimm nvdimm sgx-epc"), False),
    "panic": Rule(_MODEL, _models("pvpanic"), _models("isa pseries hyperv s390"), False),
    "pstore": Rule(attribute("backend"), _models("acpi-erst"), absent=False),
    **dict.fromkeys(_models("audio channel console emulator graphics hub lease nvram parallel redirdev"), NEVER),
    "iommu": NEVER,
    "smartcard": NEVER,
    "tpm": NEVER,
}
KEEPS_PCI_ADDRESS = frozenset(
    {
        "controller ccid",
        "controller fdc",
        "controller isa",
        "controller xenbus",
        "hub",
        "input",
        "interface",
        "sound",
        "tpm",
    }
)
"""Kinds whose models that are not on PCI still take up the PCI address that a person gave them,
as libvirt 9.0 was seen to do."""


def kind_of(element: etree._Element) -> str:
    """The kind of a device element: its tag, and its type where kinds of one tag differ."""
    tag = str(element.tag)
    if tag in ("controller", "hostdev"):
        return f"{tag} {element.get('type', '')}"
    return tag


def address_of(element: etree._Element) -> etree._Element | None:
    """The element that says where a device sits in the guest."""
    return element.find("address")


def sits_on_pci(element: etree._Element) -> bool:
    """Whether a device sits on PCI.

    element: a child of <devices> that is not a PCI controller. Raises InputError when neither
    its model nor its address tells.
    """
    kind = kind_of(element)
    if kind == "interface" and _is_usb_source(element):
        return False
    address = address_of(element)
    type_of_address = address.get("type") if address is not None else None
    if type_of_address not in (None, "pci"):
        return False
    if kind.startswith("hostdev") and element.get("mode", "subsystem") != "subsystem":
        return False
    rule = RULES.get(kind)
    addressed = type_of_address == "pci"
    if addressed and (rule is None or kind in KEEPS_PCI_ADDRESS):
        return True
    return rule is not None and _by_model(element, rule, addressed)


def _by_model(element: etree._Element, rule: Rule, addressed: bool) -> bool:
    model = rule.read(element)
    if model is None:
        return rule.absent
    if model in rule.off:
        return False
    if rule.on is None or model in rule.on or addressed:
        return True
    raise InputError(
        f"<{element.tag}>: unknown model '{model}', so whether it sits on PCI cannot be told; give it an <address>",
        line_of(element),
    )


def _is_usb_source(interface: etree._Element) -> bool:
    source = interface.find("source/address")
    return interface.get("type") == "hostdev" and source is not None and (source.get("type") == "usb")
