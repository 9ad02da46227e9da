"""Which elements of domain XML sit on PCI in a pseries guest.

The models are those of libvirt's domain schema (src/conf/schemas/domaincommon.rng) and of
qemuDomainDeviceCalculatePCIConnectFlags in its src/qemu/qemu_domain_address.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lxml import etree

from ..errors import InputError
from ..records import Record
from .disks import disk_bus
from .values import shorten, source_line

VIRTIO = frozenset({"virtio", "virtio-transitional", "virtio-non-transitional"})
USB2_FUNCTIONS = {"ich9-ehci1": 7, "ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2}
"""The function of each of the USB 2 controllers that share a slot (ICH9)."""

Reader = Callable[[etree._Element], "str | None"]


@dataclass(frozen=True, eq=False, repr=False)
class Rule(Record):
    """When elements of one kind sit on PCI.

    Attributes:
        read: Returns the model of an element, or None if it names none.
        on: The models that sit on PCI, or None for all that are not in `off`.
        off: The models that do not.
        absent: Whether an element without a model sits on PCI.
    """

    read: Reader
    on: frozenset[str] | None
    off: frozenset[str] = frozenset()
    absent: bool = True


def attribute(name: str) -> Reader:
    """Return a reader of an attribute of the element."""
    return lambda element: element.get(name)


def child(path: str, name: str) -> Reader:
    """Return a reader of an attribute of an element below it."""

    def read(element: etree._Element) -> str | None:
        found = element.find(path)
        return found.get(name) if found is not None else None

    return read


def input_bus(element: etree._Element) -> str | None:
    """Return the bus of an input device; libvirt puts a passed-through one on virtio."""
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
    "disk": Rule(disk_bus, _models("virtio"), _models("ide fdc scsi xen usb uml sata sd none nvme"), False),
    "interface": Rule(child("model", "type"), None, _models("usb-net spapr-vlan")),
    "controller usb": Rule(
        _MODEL,
        _models("piix3-uhci piix4-uhci ehci vt82c686b-uhci pci-ohci nec-xhci qemu-xhci") | frozenset(USB2_FUNCTIONS),
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
"""Kinds whose models that are not on PCI still take up the PCI address that they were given,
as observed with libvirt 9.0."""


def device_kind(element: etree._Element) -> str:
    """Return the kind of a device: its tag, with its type if kinds of one tag differ."""
    tag = str(element.tag)
    if tag in ("controller", "hostdev"):
        return f"{tag} {element.get('type', '')}"
    return tag


def sits_on_pci(element: etree._Element) -> bool:
    """Return whether a device sits on PCI.

    Args:
        element: A child of <devices> that is not a PCI controller.

    Raises:
        InputError: Neither its model nor its address tells.
    """
    kind = device_kind(element)
    if kind == "interface" and _is_usb_source(element):
        return False
    address = element.find("address")
    address_type = address.get("type") if address is not None else None
    if address_type not in (None, "pci"):
        return False
    if kind.startswith("hostdev") and element.get("mode", "subsystem") != "subsystem":
        return False
    rule = RULES.get(kind)
    addressed = address_type == "pci"
    if addressed and (rule is None or kind in KEEPS_PCI_ADDRESS):
        return True
    return rule is not None and _model_sits_on_pci(element, rule, addressed)


def _model_sits_on_pci(element: etree._Element, rule: Rule, addressed: bool) -> bool:
    model = rule.read(element)
    if model is None:
        return rule.absent
    if model in rule.off:
        return False
    if rule.on is None or model in rule.on or addressed:
        return True
    raise InputError(
        f"<{element.tag}>: unknown model '{shorten(model)}': cannot tell whether it is a PCI device; "
        "give it an <address>",
        source_line(element),
    )


def _is_usb_source(interface: etree._Element) -> bool:
    source = interface.find("source/address") if interface.get("type") == "hostdev" else None
    return source is not None and source.get("type") == "usb"
