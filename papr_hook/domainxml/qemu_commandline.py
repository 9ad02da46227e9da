"""What the qemu:commandline of a definition puts on PCI behind libvirt's back.

Measured with libvirt 9.0 and QEMU 7.2: libvirt calls the bus of the pci-root with index N
pci.N.0, and that of index 0 pci.0. A device of QEMU's old syntax that names no bus goes to PHB 0;
one in JSON goes to the PHB with the highest index. libvirt's own devices come after the former
and before the latter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"

# Drivers whose device sits on a bus of another kind, by the start of their names.
_ELSEWHERE = re.compile(
    r"usb-(?!ehci$|uhci|xhci)|scsi-|ide-|virtserialport|virtconsole|spapr-|isa-|i2c-|ccid-"
    r"|smartcard|nvme-ns|nvdimm|pc-dimm|power\d|host-|loader|tpm-|guest-loader"
)
_BUS = re.compile(r"(?:.*/)?(.*?)(?:\.0)?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\d+")


@dataclass(frozen=True)
class Commandline:
    """What a commandline takes.

    buses: the indexes of pci-roots that something is on; last: something is on the one with the
    highest index, whichever that is; targets: target indexes of host bridges that are added.
    """

    buses: frozenset[int] = frozenset()
    last: bool = False
    targets: frozenset[int] = frozenset()


def read(root: etree._Element, aliases: Mapping[str, int]) -> Commandline:
    """What the commandline of a definition takes.

    root: the <domain>; aliases: the index of each pci-root that a person gave a name.
    """
    devices = [properties for option, properties in _options(root) if option == "-device"]
    bridges = [d for d in devices if d.get("driver") == "spapr-pci-host-bridge"]
    others = [d for d in devices if d not in bridges]
    buses = {index for d in others for index in _index(d.get("bus", ""), aliases)}
    buses |= {index for bus in _moved_buses(root) for index in _index(bus, aliases)}
    homeless = [d for d in others if "bus" not in d and not _ELSEWHERE.match(d["driver"])]
    if any("json" not in d for d in homeless) or _has_old_options(root):
        buses.add(0)
    targets = (bridge.get("index", "") for bridge in bridges)
    return Commandline(
        frozenset(buses),
        any("json" in d for d in homeless),
        frozenset(int(target, 0) for target in targets if _NUMBER.fullmatch(target)),
    )


def _index(bus: str, aliases: Mapping[str, int]) -> Iterator[int]:
    """The index of the PCI controller that a bus name of QEMU's belongs to.

    pci.3 without the .0 is no vPHB's name to QEMU, but a person who wrote it meant that one.
    """
    match = _BUS.fullmatch(bus)
    name = match.group(1) if match is not None else ""
    name = "pci.0" if name == "pci" else name
    number = re.fullmatch(r"pci\.(\d+)", name)
    if name in aliases:
        yield aliases[name]
    elif number is not None:
        yield int(number.group(1))


def _options(root: etree._Element) -> Iterator[tuple[str, dict[str, str]]]:
    """Each option of the commandline, with its value's properties."""
    arguments = [argument.get("value", "") for argument in root.iterfind(f"{QEMU}commandline/{QEMU}arg")]
    for option, value in zip(arguments, [*arguments[1:], ""]):
        if option.startswith("-"):
            yield re.sub("^--", "-", option), _properties(value)


def _has_old_options(root: etree._Element) -> bool:
    """Whether an option other than -device puts something on PHB 0."""
    return any(
        option in ("-nic", "-usb")
        or (option == "-net" and value.get("driver") == "nic")
        or (option == "-drive" and value.get("if") == "virtio")
        for option, value in _options(root)
    )


def _moved_buses(root: etree._Element) -> Iterator[str]:
    """The buses that qemu:override moves devices to."""
    for found in root.iterfind(f"{QEMU}override//{QEMU}property"):
        if found.get("name") == "bus":
            yield found.get("value", "")


def _properties(text: str) -> dict[str, str]:
    """The properties of a device; its driver as 'driver', and 'json' where it is in JSON."""
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            return {"driver": ""}
        named = {str(key): str(value) for key, value in found.items()}
        return {"driver": "", **named, "json": "yes"}
    first, *others = text.split(",")
    pairs = (other.partition("=") for other in others)
    key, equals, value = first.partition("=")
    start = {key: value} if equals else {"driver": first}
    return {"driver": "", **start, **{key: value for key, _, value in pairs}}
