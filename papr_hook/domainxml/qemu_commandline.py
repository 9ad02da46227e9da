"""What the qemu:commandline of domain XML puts on PCI without libvirt's knowledge.

Measured with libvirt 9.0 and QEMU 7.2: libvirt calls the bus of the pci-root with index N
pci.N.0, and that of index 0 pci.0. A device in QEMU's old syntax that names no bus goes to PHB 0,
and one in JSON goes to the PHB with the highest index. QEMU creates libvirt's own devices after
the former and before the latter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from ..records import Record
from .values import parse_digits, parse_number

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"

# Compiled when a guest has a qemu:commandline, as few have: the hook waits for each pattern.
_ELSEWHERE = (
    r"usb-(?!ehci$|uhci|xhci)|scsi-|ide-|virtserialport|virtconsole|spapr-|isa-|i2c-|ccid-"
    r"|smartcard|nvme-ns|nvdimm|pc-dimm|power\d|host-|loader|tpm-|guest-loader"
)
"""Drivers whose device sits on a bus of another kind, by the start of their names."""
_BUS = r"(?:.*/)?(.*?)(?:\.0)?"
_VPHB_ID = r"pci\.([1-9][0-9]*)"
_PHB_DRIVERS = frozenset({"spapr-pci-host-bridge", "spapr-pci-vfio-host-bridge"})
"""QEMU dropped the latter in 6.0."""

_VIO_NICS = frozenset({"", "spapr-vlan", "ibmveth"})
"""NIC models of -nic and -net that are no PCI device (spapr_machine_init in QEMU's hw/ppc/spapr.c)."""


@dataclass(frozen=True, eq=False, repr=False)
class Commandline(Record):
    """What a commandline takes.

    Attributes:
        buses: Indexes of pci-roots that a device is on.
        uses_last_bus: A device is on the pci-root with the highest index, whichever that is.
        targets: Target indexes of host bridges that it adds.
        slots: Slots of PHB 0 that a device names as its own.
        indexes: Indexes of pci-roots whose QEMU id its devices have, so that QEMU refuses those pci-roots.
    """

    buses: frozenset[int] = frozenset()
    uses_last_bus: bool = False
    targets: frozenset[int] = frozenset()
    slots: frozenset[int] = frozenset()
    indexes: frozenset[int] = frozenset()


def read_commandline(root: etree._Element, aliases: Mapping[str, int]) -> Commandline:
    """Return what the commandline of domain XML takes.

    Args:
        root: The <domain> element.
        aliases: The index of each pci-root with a user-defined alias.
    """
    options = list(_options(root))
    devices = [properties for option, properties in options if option == "-device"]
    bridges = [d for d in devices if d["driver"] in _PHB_DRIVERS]
    others = [d for d in devices if d["driver"] not in _PHB_DRIVERS]
    buses = {index for d in others for index in _bus_index(d.get("bus", ""), aliases)}
    buses |= {index for bus in _overridden_buses(root) for index in _bus_index(bus, aliases)}
    on_phb_0 = [properties for option, properties in options if _is_old_option(option, properties)]
    homeless = [d for d in others if "bus" not in d and not re.match(_ELSEWHERE, d["driver"])]
    on_phb_0 += [d for d in homeless if "json" not in d]
    if on_phb_0:
        buses.add(0)
    on_phb_0 += [d for d in others if 0 in _bus_index(d.get("bus", ""), aliases)]
    targets = (parse_number(bridge.get("index", "")) for bridge in bridges)
    named = {index for d in devices for index in _vphb_index(d.get("id", ""))}
    return Commandline(
        frozenset(buses),
        any("json" in d for d in homeless),
        frozenset(target for target in targets if target is not None),
        frozenset(slot for slot in map(_slot, on_phb_0) if slot is not None),
        frozenset(named - set(aliases.values())),
    )


def _vphb_index(identity: str) -> Iterator[int]:
    """Yield the index of the pci-root that libvirt gives a QEMU id, if any; one with an alias has that."""
    match = re.fullmatch(_VPHB_ID, identity)
    index = parse_digits(match.group(1)) if match is not None else None
    if index is not None:
        yield index


def _slot(properties: Mapping[str, str]) -> int | None:
    """Return the slot that a device names as its own, or None.

    QEMU reads addr as hexadecimal numbers, SLOT or SLOT.FUNCTION (set_pci_devfn in its
    hw/core/qdev-properties-system.c).
    """
    text = properties.get("addr", "")
    match = re.fullmatch(r"(?:0[xX])?0*([0-9a-fA-F]{1,2})(?:\.[0-9a-fA-F]+)?", text)
    return int(match.group(1), 16) if match is not None else None


def _bus_index(bus: str, aliases: Mapping[str, int]) -> Iterator[int]:
    """Yield the index of the PCI controller that a QEMU bus name belongs to, if any.

    QEMU has no bus pci.3, but users who write it mean pci.3.0.
    """
    match = re.fullmatch(_BUS, bus)
    name = match.group(1) if match is not None else ""
    name = "pci.0" if name == "pci" else name
    number = re.fullmatch(r"pci\.([0-9]+)", name)
    if name in aliases:
        yield aliases[name]
    elif number is not None:
        index = parse_digits(number.group(1))
        if index is not None:
            yield index


def _options(root: etree._Element) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each option of the commandline, with the properties of its value."""
    arguments = [argument.get("value", "") for argument in root.iterfind(f"{QEMU}commandline/{QEMU}arg")]
    for option, value in zip(arguments, [*arguments[1:], ""]):
        if option.startswith("-"):
            yield re.sub("^--", "-", option), _properties(value)


def _is_old_option(option: str, properties: Mapping[str, str]) -> bool:
    """Return whether an option other than -device puts something on PHB 0, as QEMU 7.2 was seen to do."""
    if option == "-nic" or (option == "-net" and properties["driver"] == "nic"):
        return properties.get("model", "") not in _VIO_NICS
    if option in ("-machine", "-M"):
        return properties.get("usb") == "on"
    if option == "-vga":
        return properties["driver"] != "none"
    if option == "-audio":
        return "model" in properties
    if option == "-drive":
        return properties.get("if") == "virtio"
    return option in ("-usb", "-virtfs", "-soundhw")


def _overridden_buses(root: etree._Element) -> Iterator[str]:
    """Yield the buses that qemu:override moves devices to."""
    for found in root.iterfind(f"{QEMU}override//{QEMU}property"):
        if found.get("name") == "bus":
            yield found.get("value", "")


class _JsonInteger(str):
    """The digits of a number: converting all that a document can have takes quadratic time."""


def _properties(text: str) -> dict[str, str]:
    """Return the properties of a device: its driver as 'driver', and 'json' if it is in JSON."""
    if text.lstrip().startswith("{"):
        import json  # few guests have such a device, and the hook waits for each module

        try:
            found = json.loads(text, parse_int=_JsonInteger)
        except (ValueError, RecursionError):
            return {"driver": ""}
        if isinstance(found.get("addr"), _JsonInteger):
            # As a number, addr is slot and function in one (set_pci_devfn).
            found["addr"] = f"{(parse_number(found['addr']) or 0) >> 3:x}"
        named = {str(key): value if isinstance(value, str) else "" for key, value in found.items()}
        return {"driver": "", **named, "json": "yes"}
    first, *others = text.split(",")
    pairs = (other.partition("=") for other in others)
    key, equals, value = first.partition("=")
    start = {key: value} if equals else {"driver": first}
    return {"driver": "", **start, **{key: value for key, _, value in pairs}}
