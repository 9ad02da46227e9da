"""Domain XML, as bytes, to a PseriesDomain: the XML tree, and the guest that it describes."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from ..errors import InputError
from ..model import MAX_PHBS, Bridge, Device, Guest, PciAddress, Phb
from ..records import Record
from . import controllers, numa, scsi, text
from .identity import read_identity, read_rank
from .implicit import ImplicitDevice, implicit_devices
from .pci_devices import USB2_FUNCTIONS, device_kind, sits_on_pci
from .qemu_commandline import read_commandline
from .values import parse_decimal, read_decimal, read_number, shorten, source_line

PAPR = "{urn:papr-hook:domain:1}"
BRIDGE_MODELS = frozenset(
    {
        "pcie-root",
        "pci-bridge",
        "dmi-to-pci-bridge",
        "pcie-to-pci-bridge",
        "pcie-root-port",
        "pcie-switch-upstream-port",
        "pcie-switch-downstream-port",
        "pci-expander-bus",
        "pcie-expander-bus",
    }
)


@dataclass(frozen=True, eq=False, repr=False)
class OtherDomain(Record):
    """Domain XML, or another document, that is not about a pseries guest.

    Attributes:
        data: Its bytes.
        tree: Its XML.
        guest: None; it tells this class from PseriesDomain.
    """

    data: bytes
    tree: etree._ElementTree
    guest: None = None


@dataclass(frozen=True, eq=False, repr=False)
class PseriesDomain(Record):
    """The domain XML of a pseries guest.

    Attributes:
        data: Its bytes.
        tree: Its XML, which is never changed.
        guest: The guest that it describes.
        elements: For each of the guest's devices, its element, or what libvirt would add.
        controllers: The PCI controllers and their indexes.
    """

    data: bytes
    tree: etree._ElementTree
    guest: Guest
    elements: tuple[etree._Element | ImplicitDevice, ...] = ()
    controllers: tuple[tuple[etree._Element, int], ...] = ()


def read(data: bytes, host_arch: str | None = None) -> PseriesDomain | OtherDomain:
    """Parse domain XML.

    Args:
        data: The document.
        host_arch: The architecture of a guest whose XML names none (default: this host's).

    Raises:
        InputError: libvirt would not accept the document either.
    """
    tree = text.parse(data)
    root = tree.getroot()
    if not is_pseries(root, host_arch or os.uname().machine):
        return OtherDomain(data, tree)
    elements = list(_device_elements(root))
    indexes = controllers.assign_indexes(elements, scsi.added_while_parsing(elements))
    pci = [e for e in elements if device_kind(e) == "controller pci"]
    placed = [e for e in elements if device_kind(e) != "controller pci" and sits_on_pci(e)]
    added = tuple(implicit_devices(elements, indexes))
    return PseriesDomain(
        data,
        tree,
        _read_guest(root, elements, pci, _read_devices(elements, placed, indexes, added), indexes),
        (*placed, *added),
        tuple((e, indexes[e]) for e in pci),
    )


def _read_guest(
    root: etree._Element,
    elements: list[etree._Element],
    pci: list[etree._Element],
    devices: tuple[Device, ...],
    indexes: Mapping[etree._Element, int],
) -> Guest:
    """Return the guest.

    Args:
        root: The <domain> element.
        elements: All devices of the domain XML.
        pci: The PCI controllers.
        devices: What sits on PCI.
        indexes: The index of each controller.
    """
    mode, spares, reserve = _override(root)
    aliases = {e: _alias(e) for e in pci}
    taken = read_commandline(root, {alias: indexes[e] for e, alias in aliases.items() if alias})
    return Guest(
        name=root.findtext("name", "").strip() or "(no name)",
        phbs=tuple(_phb(e, indexes[e], aliases[e]) for e in pci if _model(e) == "pci-root"),
        bridges=tuple(_bridge(e, indexes[e]) for e in pci if _model(e) != "pci-root"),
        devices=devices,
        commandline_buses=frozenset(bus for bus in taken.buses if bus < MAX_PHBS),
        commandline_slots=taken.slots,
        commandline_uses_last_bus=taken.uses_last_bus,
        commandline_targets=taken.targets,
        commandline_indexes=taken.indexes,
        mode=mode,
        spares=spares,
        reserve=reserve,
        cells=numa.read_cells(root),
        memory=numa.read_memory(root),
        is_kvm=root.get("type") == "kvm",
        vfio=numa.needs_vfio(elements),
        unassigned=frozenset(_unassigned(elements)),
    )


def _read_devices(
    elements: list[etree._Element],
    placed: list[etree._Element],
    indexes: Mapping[etree._Element, int],
    added: tuple[ImplicitDevice, ...],
) -> tuple[Device, ...]:
    ordinals = _ordinals(elements)
    devices = tuple(_device(e, indexes, ordinals[e]) for e in placed)
    _refuse_clashes(devices)
    return devices + tuple(map(_implicit, added))


def _implicit(extra: ImplicitDevice) -> Device:
    """Return the device that libvirt would add."""
    element = extra.make_element()
    index = read_decimal(element, "index")
    return Device(
        name=extra.name,
        kind=device_kind(element),
        identity=read_identity(element, index),
        rank=read_rank(element, index),
    )


def _ordinals(elements: list[etree._Element]) -> dict[etree._Element, int]:
    """Return, for each element, which of those with its tag it is, counted from 1."""
    counts: dict[str, int] = {}
    ordinals = {}
    for element in elements:
        tag = str(element.tag)
        ordinals[element] = counts[tag] = counts.get(tag, 0) + 1
    return ordinals


def is_pseries(root: etree._Element, host_arch: str) -> bool:
    """Return whether a document is the domain XML of a QEMU or KVM pseries guest.

    Args:
        root: The top element.
        host_arch: The architecture if the XML names none.
    """
    kind = root.find("os/type")
    if root.tag != "domain" or root.get("type") not in ("qemu", "kvm") or kind is None:
        return False
    arch = kind.get("arch")
    machine = kind.get("machine")
    if machine is None:
        return (arch or host_arch) in ("ppc64", "ppc64le")
    return machine.startswith("pseries") and arch in (None, "ppc64", "ppc64le")


def _device_elements(root: etree._Element) -> Iterator[etree._Element]:
    for holder in root.iterfind("devices"):
        yield from (child for child in holder if isinstance(child.tag, str))


def _model(controller: etree._Element) -> str:
    model = controller.get("model")
    if model is None:
        raise InputError("<controller type='pci'> has no model", source_line(controller))
    if model != "pci-root" and model not in BRIDGE_MODELS:
        raise InputError(f"unknown PCI controller model '{shorten(model)}'", source_line(controller))
    return model


def _alias(element: etree._Element) -> str:
    alias = element.find("alias")
    return alias.get("name", "") if alias is not None else ""


def _phb(element: etree._Element, index: int, alias: str) -> Phb:
    target = element.find("target")
    node = (target.findtext("node") or None) if target is not None else None
    cell = parse_decimal(node) if node is not None else None
    if node is not None and cell is None:
        raise InputError(f"<node>{shorten(node)}</node> is not a NUMA cell", source_line(element))
    written = target if target is not None and target.get("index") is not None else None
    return Phb(
        index=index,
        target=read_number(written, "index", 0, controllers.MAX_INDEX) if written is not None else None,
        node=cell,
        line=source_line(element),
        named=alias.startswith("ua-"),
    )


def _bridge(element: etree._Element, index: int) -> Bridge:
    return Bridge(index, _model(element), source_line(element), _address(element.find("address")))


def _device(element: etree._Element, indexes: Mapping[etree._Element, int], ordinal: int) -> Device:
    kind = device_kind(element)
    passthrough = kind in ("hostdev pci", "hostdev mdev") or (
        element.tag == "interface" and element.get("type") == "hostdev"
    )
    mediated = kind == "hostdev mdev"
    model = element.get("model", "")
    is_usb2 = kind == "controller usb" and model in USB2_FUNCTIONS
    index = indexes.get(element)
    at = element.find("address")
    host = _source(element) if passthrough and not mediated else None
    return Device(
        name=_name(element, indexes, ordinal),
        kind=kind,
        identity=str(host) if kind == "hostdev pci" and host is not None else read_identity(element, index),
        rank=read_rank(element, index),
        line=source_line(element),
        address=_address(at),
        passthrough=passthrough,
        source=host,
        is_mdev=mediated,
        network=_network(element) if element.tag == "interface" else None,
        usb2_group=f"usb {indexes[element]}" if is_usb2 else None,
        usb2_function=USB2_FUNCTIONS[model] if is_usb2 else 0,
        multifunction=at is not None and at.get("multifunction") == "on",
    )


def _network(interface: etree._Element) -> str | None:
    """Return the libvirt network that an interface is connected to, or None."""
    source = interface.find("source")
    return source.get("network") if source is not None else None


def _name(element: etree._Element, indexes: Mapping[etree._Element, int], ordinal: int) -> str:
    """Return what a message calls a device: its tag, and what identifies it in the domain XML."""
    if element.tag == "controller":
        return f"<controller> {element.get('type')} {indexes[element]}"
    read_detail = _DETAILS.get(str(element.tag))
    detail = read_detail(element) if read_detail is not None else None
    return f"<{element.tag}> {shorten(detail or _alias(element) or element.get('model') or f'#{ordinal}')}"


def _attribute(path: str, *names: str) -> Callable[[etree._Element], str | None]:
    """Return a reader of the first of some attributes of an element below a device."""

    def read(element: etree._Element) -> str | None:
        found = element.find(path)
        values = (found.get(name) for name in names) if found is not None else ()
        return next((value for value in values if value), None)

    return read


def _host_address(hostdev: etree._Element) -> str | None:
    source = _source(hostdev) if hostdev.get("type") == "pci" else None
    return str(source) if source is not None else None


_DETAILS = {
    "disk": _attribute("target", "dev", "dir"),
    "filesystem": _attribute("target", "dev", "dir"),
    "hostdev": _host_address,
    "interface": _attribute("mac", "address"),
    "video": _attribute("model", "type"),
}
"""By tag: what identifies a device in a message."""


def _address(at: etree._Element | None) -> PciAddress | None:
    """Return the PCI address that an <address> element has, or None if libvirt would choose one.

    libvirt treats an address whose domain, bus and slot are all 0 as absent
    (virPCIDeviceAddressIsEmpty in its src/util/virpci.c).
    """
    if at is None or at.get("type") != "pci":
        return None
    domain = read_number(at, "domain", 0, 0xFFFFFFFF)
    bus = read_number(at, "bus", 0, 0xFF)
    slot = read_number(at, "slot", 0, 0x1F)
    if domain == bus == slot == 0:
        return None
    return PciAddress(domain, bus, slot, read_number(at, "function", 0, 7))


def _source(element: etree._Element) -> PciAddress | None:
    """Return the host device that is passed through, or None if not named."""
    at = element.find("source/address")
    if at is None:
        return None
    return PciAddress(
        read_number(at, "domain", 0, 0xFFFFFFFF),
        read_number(at, "bus", 0, 0xFF),
        read_number(at, "slot", 0, 0x1F),
        read_number(at, "function", 0, 7),
    )


def _refuse_clashes(found: tuple[Device, ...]) -> None:
    """Refuse two devices at one address, or one host device passed through twice, as libvirt does."""
    for device, other in _doubles(found, lambda device: device.address):
        text = f"{device.name} is at {device.address}, and so is {other.name} (line {other.line})"
        raise InputError(text, device.line)
    for device, other in _doubles(found, lambda device: device.source):
        text = f"host device {device.source} is passed through twice, here and on line {other.line}"
        raise InputError(text, device.line)


def _doubles(found: tuple[Device, ...], key: Callable[[Device], Hashable | None]) -> Iterator[tuple[Device, Device]]:
    """Yield (device, earlier device) for each duplicate key, ignoring None."""
    first: dict[Hashable, Device] = {}
    for device in found:
        if key(device) is not None and first.setdefault(key(device), device) is not device:
            yield device, first[key(device)]


def _unassigned(elements: list[etree._Element]) -> Iterator[PciAddress]:
    """Yield the host devices that are detached from the host without being given to the guest."""
    for element in elements:
        at = element.find("address") if element.tag == "hostdev" and element.get("type") == "pci" else None
        if at is not None and at.get("type") == "unassigned":
            source = _source(element)
            if source is not None:
                yield source


def _override(root: etree._Element) -> tuple[str | None, int | None, frozenset[int]]:
    """Return mode, spares and reserve of the guest's own papr:layout; None and nothing if absent."""
    found = root.find(f"metadata/{PAPR}layout")
    if found is None:
        return None, None, frozenset()
    mode = found.get("mode")
    if mode is not None and mode not in ("auto", "keep"):
        raise InputError(f"<papr:layout>: mode='{shorten(mode)}' is not auto or keep", source_line(found))
    spares = read_decimal(found, "spares")
    if spares is not None and spares > 30:
        raise InputError(f"<papr:layout>: spares='{spares}' is more than 30", source_line(found))
    return mode, spares, _reserve(found)


def _reserve(layout: etree._Element) -> frozenset[int]:
    """Return the bus indexes that a papr:layout reserves."""
    words = layout.get("reserve", "").split()
    numbers = [parse_decimal(word) for word in words]
    for word, number in zip(words, numbers):
        if number is None or number >= MAX_PHBS:
            text = f"<papr:layout>: reserve='{shorten(word)}' is not a bus index from 0 to {MAX_PHBS - 1}"
            raise InputError(text, source_line(layout))
    return frozenset(number for number in numbers if number is not None)
