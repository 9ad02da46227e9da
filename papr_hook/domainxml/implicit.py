"""The devices that libvirt adds to a pseries guest by itself, as far as they sit on PCI.

From libvirt's qemuDomainDefAddDefaultDevices (src/qemu/qemu_postparse.c), which adds the USB
controller and the memory balloon, and virDomainDefAddImplicitDevices (src/conf/domain_conf.c),
which adds the video and the controllers that disks, channels and consoles need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lxml import etree

from ..errors import InputError
from . import pci_devices, scsi
from .drives import disk_number, drive_controller
from .values import decimal, line_of

SATA_PORTS = 6
VIRTIO_SERIAL_PORTS = 31
MOST_PORTS = 1024
MOST_CONTROLLERS = 1024
"""Bounds of our own: libvirt 9.0 crashes on some numbers that are much larger."""


@dataclass(frozen=True)
class Added:
    """An element that libvirt would add: its tag and attributes, and how a message names it."""

    tag: str
    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    def element(self) -> etree._Element:
        """The element, without a place of its own yet."""
        return etree.Element(self.tag, dict(self.attributes))


def added_devices(elements: Iterable[etree._Element], indexes: Mapping[etree._Element, int]) -> Iterator[Added]:
    """What libvirt adds to the devices of a pseries guest that sits on PCI.

    elements: the children of <devices>; indexes: the index of each controller, as libvirt counts
    those that do not say theirs.
    """
    by_tag: dict[str, list[etree._Element]] = {}
    for element in elements:
        by_tag.setdefault(str(element.tag), []).append(element)
    controllers: dict[str, dict[int, etree._Element]] = {}
    for controller in by_tag.get("controller", []):
        there = controllers.setdefault(controller.get("type", ""), {})
        there.setdefault(indexes[controller], controller)
    disks = by_tag.get("disk", [])
    if 0 not in controllers.get("usb", {}):
        yield _controller("usb", 0)
    for index in sorted(_sata(disks) - set(controllers.get("sata", {}))):
        yield _controller("sata", index)
    for index, model in scsi.added(by_tag.get("hostdev", []), disks, controllers.get("scsi", {})):
        if model is not None:
            yield _controller("scsi", index, model)
    for index in _virtio_serial(by_tag, controllers.get("virtio-serial", {})):
        yield _controller("virtio-serial", index)
    if by_tag.get("graphics") and not by_tag.get("video"):
        yield Added("video", "<video>, which libvirt adds")
    if not by_tag.get("memballoon"):
        yield Added("memballoon", "<memballoon>, which libvirt adds", {"model": "virtio"})


def _controller(kind: str, index: int, model: str | None = None) -> Added:
    attributes = {"type": kind, "index": str(index)}
    if model is not None:
        attributes["model"] = model
    return Added("controller", f"<controller> {kind} {index}, which libvirt adds", attributes)


def _sata(disks: Iterable[etree._Element]) -> set[int]:
    """The SATA controllers that disks need: all up to the highest."""
    needed = set()
    for disk in disks:
        if pci_devices.disk_bus(disk) != "sata":
            continue
        controller = drive_controller(disk)
        target = disk.find("target")
        by_name = disk_number(target.get("dev", "")) if target is not None else None
        if controller is None and by_name is not None:
            controller = by_name // SATA_PORTS
        if controller is not None and controller > MOST_CONTROLLERS:
            raise InputError(f"<disk>: needs {controller} SATA controllers", line_of(disk))
        if controller is not None:
            needed.add(controller)
    return set(range(max(needed, default=-1) + 1))


def _virtio_serial(by_tag: Mapping[str, list[etree._Element]], present: Mapping[int, etree._Element]) -> Iterator[int]:
    """The virtio-serial controllers that channels and consoles need.

    From virDomainDefMaybeAddVirtioSerialController and virDomainVirtioSerialAddrNext in
    libvirt's src/conf: a channel gets the first free port but 0, which is for consoles, and
    those take up none.
    """
    channels = [e for e in by_tag.get("channel", []) if _target_type(e) == "virtio"]
    consoles = [e for e in by_tag.get("console", []) if _target_type(e) == "virtio"]
    addresses = [_serial_address(element) for element in channels]
    free = {index: _ports(controller) for index, controller in present.items()}
    for index, _ in [*map(_serial_address, consoles), *addresses]:
        free.setdefault(index or 0, set(range(1, VIRTIO_SERIAL_PORTS)))
    for index, port in addresses:
        if index is not None and port:
            free[index].discard(port)
    for index, port in addresses:
        if not port:
            _plug(free, index)
    yield from sorted(set(free) - set(present))


def _ports(controller: etree._Element) -> set[int]:
    """The ports that a channel may have on a controller."""
    ports = decimal(controller, "ports")
    return set(range(1, min(VIRTIO_SERIAL_PORTS if ports is None else ports, MOST_PORTS)))


def _plug(free: dict[int, set[int]], wanted: int | None) -> None:
    """Give a channel the first free port, on a new controller where there is none."""
    for index in sorted(free) if wanted is None else [wanted]:
        if free[index]:
            free[index].remove(min(free[index]))
            return
    if wanted is None:
        new = next(index for index in range(len(free) + 1) if index not in free)
        free[new] = set(range(2, VIRTIO_SERIAL_PORTS))


def _target_type(element: etree._Element) -> str | None:
    target = element.find("target")
    return target.get("type") if target is not None else None


def _serial_address(element: etree._Element) -> tuple[int | None, int | None]:
    address = element.find("address")
    if address is None or address.get("type") != "virtio-serial":
        return None, None
    return decimal(address, "controller") or 0, decimal(address, "port") or 0
