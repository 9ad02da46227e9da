"""The devices that libvirt adds to a pseries guest by itself, as far as they sit on PCI.

From libvirt's qemuDomainDefAddDefaultDevices (src/qemu/qemu_postparse.c), which adds the USB
controller and the memory balloon, and virDomainDefAddImplicitDevices (src/conf/domain_conf.c),
which adds the video device and the controllers that disks, channels and consoles need.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lxml import etree

from ..errors import InputError
from ..records import Record
from . import disks, scsi
from .values import read_decimal, source_line

SATA_PORTS = 6
VIRTIO_SERIAL_PORTS = 31
MAX_PORTS = 1024
MAX_CONTROLLERS = 1024
"""Bounds of our own: libvirt 9.0 crashes on some numbers that are much larger."""


@dataclass(frozen=True, eq=False, repr=False)
class ImplicitDevice(Record):
    """A device that libvirt would add.

    Attributes:
        tag: The tag of its element.
        name: What a message calls it.
        attributes: The attributes of its element.
    """

    tag: str
    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    def make_element(self) -> etree._Element:
        """Return a new element for it, without an address."""
        return etree.Element(self.tag, dict(self.attributes))


def implicit_devices(
    elements: Iterable[etree._Element], indexes: Mapping[etree._Element, int]
) -> Iterator[ImplicitDevice]:
    """Yield what libvirt adds to a pseries guest that sits on PCI.

    Args:
        elements: The devices of the guest.
        indexes: The index of each controller.

    Raises:
        InputError: A device needs more controllers than are allowed.
    """
    by_tag: dict[str, list[etree._Element]] = {}
    for element in elements:
        by_tag.setdefault(str(element.tag), []).append(element)
    yield from _implicit_controllers(by_tag, indexes)
    if by_tag.get("graphics") and not by_tag.get("video"):
        yield ImplicitDevice("video", "<video> (added by libvirt)")
    if not by_tag.get("memballoon"):
        yield ImplicitDevice("memballoon", "<memballoon> (added by libvirt)", {"model": "virtio"})


def _implicit_controllers(
    by_tag: Mapping[str, list[etree._Element]], indexes: Mapping[etree._Element, int]
) -> Iterator[ImplicitDevice]:
    controllers: dict[str, dict[int, etree._Element]] = {}
    for controller in by_tag.get("controller", []):
        controllers.setdefault(controller.get("type", ""), {}).setdefault(indexes[controller], controller)
    drives = by_tag.get("disk", [])
    if 0 not in controllers.get("usb", {}):
        yield _controller("usb", 0)
    for kind, named in _NAMED_CONTROLLER.items():
        for index in range(_controller_count(drives, kind, named)):
            if index not in controllers.get(kind, {}):
                yield _controller(kind, index)
    for index, model in scsi.added_controllers(by_tag.get("hostdev", []), drives, controllers.get("scsi", {})):
        if model is not None:
            yield _controller("scsi", index, model)
    for index in _virtio_serial_controllers(by_tag, controllers.get("virtio-serial", {})):
        yield _controller("virtio-serial", index)


def _controller(kind: str, index: int, model: str | None = None) -> ImplicitDevice:
    attributes = {"type": kind, "index": str(index)}
    if model is not None:
        attributes["model"] = model
    return ImplicitDevice("controller", f"<controller> {kind} {index} (added by libvirt)", attributes)


def _sata_controller(name: str) -> int | None:
    number = disks.disk_number(name)
    return number // SATA_PORTS if number is not None else None


_NAMED_CONTROLLER = {"sata": _sata_controller, "nvme": disks.nvme_controller}
"""For each bus whose controllers sit on PCI: the controller of a disk, by its target's name."""


def _controller_count(drives: Iterable[etree._Element], bus: str, named: Callable[[str], int | None]) -> int:
    """Return how many controllers the disks of a bus need: all up to the highest.

    Args:
        drives: The <disk> elements.
        bus: The bus.
        named: Returns the controller of a disk by its target's name.
    """
    count = 0
    for disk in drives:
        if disks.disk_bus(disk) != bus:
            continue
        controller = _drive_controller(disk, named)
        if controller is not None and controller > MAX_CONTROLLERS:
            raise InputError(f"<disk>: needs {controller} {bus.upper()} controllers", source_line(disk))
        count = max(count, (-1 if controller is None else controller) + 1)
    return count


def _drive_controller(disk: etree._Element, named: Callable[[str], int | None]) -> int | None:
    """Return the controller of a disk by its address, else by its target's name."""
    given = disks.drive_controller(disk)
    target = disk.find("target")
    return named(target.get("dev", "")) if given is None and target is not None else given


def _virtio_serial_controllers(
    by_tag: Mapping[str, list[etree._Element]], present: Mapping[int, etree._Element]
) -> list[int]:
    """Return the virtio-serial controllers to add for channels and consoles.

    A channel takes the first free port but 0, which is for consoles; those take up no port. From
    virDomainDefMaybeAddVirtioSerialController and virDomainVirtioSerialAddrNext in libvirt's
    src/conf.

    Args:
        by_tag: The devices of the guest.
        present: The controllers of the domain XML, by index.
    """
    channels = [_serial_address(e) for e in by_tag.get("channel", []) if _target_type(e) == "virtio"]
    consoles = [_serial_address(e) for e in by_tag.get("console", []) if _target_type(e) == "virtio"]
    sizes = {index: _port_count(controller) for index, controller in present.items()}
    for index, _ in [*consoles, *channels]:
        sizes.setdefault(index or 0, VIRTIO_SERIAL_PORTS)
    taken: dict[int, set[int]] = {}
    for index, port in channels:
        if index is not None and port and port < sizes[index]:
            taken.setdefault(index, set()).add(port)
    free = {index: max(size - 1, 0) - len(taken.get(index, ())) for index, size in sizes.items()}
    _plug(free, [index for index, port in channels if not port])
    return sorted(set(free) - set(present))


def _port_count(controller: etree._Element) -> int:
    ports = read_decimal(controller, "ports")
    return min(VIRTIO_SERIAL_PORTS if ports is None else ports, MAX_PORTS)


def _plug(free: dict[int, int], wanted: Iterable[int | None]) -> None:
    """Take a free port for each channel, on a new controller where there is none.

    Args:
        free: The number of free ports of each controller.
        wanted: The controller that each channel names, or None.
    """
    lowest = 0
    roomy = sorted(free)
    for index in wanted:
        if index is not None:
            free[index] = max(free[index] - 1, 0)
            continue
        while roomy and not free[roomy[0]]:
            heapq.heappop(roomy)
        if not roomy:
            while lowest in free:
                lowest += 1
            free[lowest] = VIRTIO_SERIAL_PORTS - 1
            heapq.heappush(roomy, lowest)
        free[roomy[0]] -= 1


def _target_type(element: etree._Element) -> str | None:
    target = element.find("target")
    return target.get("type") if target is not None else None


def _serial_address(element: etree._Element) -> tuple[int | None, int | None]:
    """Return controller and port of a channel's or console's own address, None if it has none."""
    address = element.find("address")
    if address is None or address.get("type") != "virtio-serial":
        return None, None
    return read_decimal(address, "controller") or 0, read_decimal(address, "port") or 0
