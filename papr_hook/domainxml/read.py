"""A definition's bytes to a Domain: the XML tree, and the guest that it describes."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from ..errors import InputError
from ..model import MAX_PHBS, Bridge, Device, Guest, PciAddress, Phb
from . import controllers, implicit, numa, pci_devices, qemu_commandline, scsi, text
from .values import decimal, line_of, number

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


@dataclass(frozen=True)
class Domain:
    """A definition.

    data: its bytes. tree: their XML, which nothing changes. guest: what it describes; None when
    it is not a pseries guest. elements: the element of each of the guest's devices, or what
    libvirt would add. controllers: the PCI controllers with their indexes.
    """

    data: bytes
    tree: etree._ElementTree
    guest: Guest | None = None
    elements: tuple[etree._Element | implicit.Added, ...] = ()
    controllers: tuple[tuple[etree._Element, int], ...] = ()


def read(data: bytes, host_arch: str | None = None) -> Domain:
    """Read a definition.

    data: the document; host_arch: the machine architecture of the host, which is the guest's
    where its definition is silent (default: this one's). Raises InputError for what libvirt
    would not take either.
    """
    tree = text.parse(data)
    root = tree.getroot()
    if not is_pseries(root, host_arch or os.uname().machine):
        return Domain(data, tree)
    elements = list(_device_elements(root))
    indexes = controllers.indexes_of(elements, scsi.added_while_parsing(elements))
    pci = [e for e in elements if pci_devices.kind_of(e) == "controller pci"]
    placed = [e for e in elements if e not in pci and pci_devices.sits_on_pci(e)]
    added = tuple(implicit.added_devices(elements, indexes))
    guest_devices = tuple(_device(e, indexes) for e in placed)
    _refuse_clashes(guest_devices)
    mode, spares = _override(root)
    taken = qemu_commandline.read(root, {_alias(e): indexes[e] for e in pci if _alias(e)})
    guest = Guest(
        name=root.findtext("name", "").strip() or "(no name)",
        phbs=tuple(_phb(e, indexes[e]) for e in pci if _model(e) == "pci-root"),
        bridges=tuple(_bridge(e, indexes[e]) for e in pci if _model(e) != "pci-root"),
        devices=guest_devices + tuple(Device(name=extra.name) for extra in added),
        occupied=frozenset(bus for bus in taken.buses if bus < MAX_PHBS),
        last_occupied=taken.last,
        taken_targets=taken.targets,
        mode=mode,
        spares=spares,
        cells=numa.cells_of(root),
        memory=numa.memory_of(root),
        vfio=numa.uses_vfio(iter(elements)),
        unassigned=frozenset(_unassigned(elements)),
    )
    return Domain(data, tree, guest, (*placed, *added), tuple((e, indexes[e]) for e in pci))


def is_pseries(root: etree._Element, host_arch: str) -> bool:
    """Whether a document is the definition of a QEMU or KVM pseries guest.

    root: its top element; host_arch: what counts where it names no architecture.
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
        raise InputError("<controller type='pci'> has no model", line_of(controller))
    if model != "pci-root" and model not in BRIDGE_MODELS:
        raise InputError(f"unknown PCI controller model '{model}'", line_of(controller))
    return model


def _alias(element: etree._Element) -> str:
    alias = element.find("alias")
    return alias.get("name", "") if alias is not None else ""


def _phb(element: etree._Element, index: int) -> Phb:
    target = element.find("target")
    node = element.findtext("target/node") or None
    if node is not None and not (node.isascii() and node.isdigit()):
        raise InputError(f"<node>{node}</node> is not a NUMA cell", line_of(element))
    written = target if target is not None and target.get("index") is not None else None
    return Phb(
        index=index,
        target=number(written, "index", 0, controllers.HIGHEST) if written is not None else None,
        node=int(node) if node is not None else None,
        line=line_of(element),
    )


def _bridge(element: etree._Element, index: int) -> Bridge:
    return Bridge(index, _model(element), line_of(element), _address(element))


def _device(element: etree._Element, indexes: Mapping[etree._Element, int]) -> Device:
    passthrough = pci_devices.kind_of(element) in ("hostdev pci", "hostdev mdev")
    passthrough |= element.tag == "interface" and element.get("type") == "hostdev"
    mediated = pci_devices.kind_of(element) == "hostdev mdev"
    source = element.find("source")
    model = element.get("model", "")
    is_usb2 = pci_devices.kind_of(element) == "controller usb" and model in pci_devices.COMPANIONS
    network = source.get("network") if source is not None else None
    return Device(
        name=_name(element, indexes),
        line=line_of(element),
        address=_address(element),
        passthrough=passthrough,
        source=_source(element) if passthrough and not mediated else None,
        mediated=mediated,
        network=network if element.tag == "interface" else None,
        companions=f"usb {indexes[element]}" if is_usb2 else None,
        function=pci_devices.COMPANIONS.get(model, 0) if is_usb2 else 0,
    )


def _name(element: etree._Element, indexes: Mapping[etree._Element, int]) -> str:
    """How a message names a device: what a person would look for in the definition."""
    target, mac = element.find("target"), element.find("mac")
    detail = ""
    if element.tag == "controller":
        detail = f"{element.get('type')} {indexes[element]}"
    elif element.tag == "hostdev" and element.find("source/address") is not None:
        source = _source(element) if element.get("type") == "pci" else None
        detail = str(source) if source is not None else ""
    elif element.tag == "interface" and mac is not None:
        detail = mac.get("address", "")
    elif element.tag in ("disk", "filesystem") and target is not None:
        detail = target.get("dev") or target.get("dir") or ""
    elif element.tag == "video":
        model = element.find("model")
        detail = model.get("type", "") if model is not None else ""
    detail = detail or _alias(element) or element.get("model") or _ordinal(element)
    return f"<{element.tag}> {detail}"


def _ordinal(element: etree._Element) -> str:
    """Which of the elements of its kind one is, counted as a person would, from 1."""
    return f"#{1 + sum(1 for _ in element.itersiblings(str(element.tag), preceding=True))}"


def _address(element: etree._Element) -> PciAddress | None:
    """The PCI address of a device; None where libvirt would choose one.

    libvirt takes an address whose domain, bus and slot are all 0 as no address
    (virPCIDeviceAddressIsEmpty in its src/util/virpci.c).
    """
    at = pci_devices.address_of(element)
    if at is None or at.get("type") != "pci":
        return None
    domain = number(at, "domain", 0, 0xFFFFFFFF)
    bus = number(at, "bus", 0, 0xFF)
    slot = number(at, "slot", 0, 0x1F)
    if domain == bus == slot == 0:
        return None
    return PciAddress(domain, bus, slot, number(at, "function", 0, 7))


def _source(element: etree._Element) -> PciAddress | None:
    """The host device that is passed through."""
    at = element.find("source/address")
    if at is None:
        return None
    return PciAddress(
        number(at, "domain", 0, 0xFFFFFFFF),
        number(at, "bus", 0, 0xFF),
        number(at, "slot", 0, 0x1F),
        number(at, "function", 0, 7),
    )


def _refuse_clashes(found: tuple[Device, ...]) -> None:
    """Refuse what libvirt refuses: two devices at one address, or one host device passed through twice."""
    for device, other in _doubles(found, lambda device: device.address):
        text = f"{device.name} is at {device.address}, and so is {other.name} (line {other.line})"
        raise InputError(text, device.line)
    for device, other in _doubles(found, lambda device: device.source):
        text = f"host device {device.source} is passed through twice, here and on line {other.line}"
        raise InputError(text, device.line)


def _doubles(found: tuple[Device, ...], key: Callable[[Device], Hashable | None]) -> Iterator[tuple[Device, Device]]:
    """Each device that has the key of another before it, with that one; None is no key."""
    there: dict[Hashable, Device] = {}
    for device in found:
        if key(device) is not None and there.setdefault(key(device), device) is not device:
            yield device, there[key(device)]


def _unassigned(elements: list[etree._Element]) -> Iterator[PciAddress]:
    """Host devices that a definition takes from the host without giving them to the guest."""
    for element in elements:
        at = pci_devices.address_of(element)
        if pci_devices.kind_of(element) == "hostdev pci" and at is not None and at.get("type") == "unassigned":
            source = _source(element)
            if source is not None:
                yield source


def _override(root: etree._Element) -> tuple[str | None, int | None]:
    """What the definition's own papr:layout asks for."""
    found = root.find(f"metadata/{PAPR}layout")
    if found is None:
        return None, None
    mode = found.get("mode")
    if mode not in (None, "auto", "keep"):
        raise InputError(f"<papr:layout>: mode='{mode}' is not auto or keep", line_of(found))
    spares = decimal(found, "spares")
    if spares is not None and spares > 30:
        raise InputError(f"<papr:layout>: spares='{spares}' is more than 30", line_of(found))
    return mode, spares
