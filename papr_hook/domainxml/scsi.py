"""The SCSI controllers that libvirt adds for SCSI host devices.

Those take the model of an existing controller, so they may sit on PCI. The controllers that
libvirt adds for disks are ibmvscsi, which does not. From
virDomainDefMaybeAddHostdevSCSIcontroller in libvirt's src/conf/domain_conf.c and
virDomainHostdevAssignAddress in its domain_postparse.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lxml import etree

from ..errors import InputError
from . import pci_devices
from .disks import disk_bus, disk_number, drive_controller, drive_unit
from .values import read_decimal, source_line

UNITS = 7
MAX_CONTROLLERS = 1024
"""A bound of our own: libvirt 9.0 crashes on some numbers that are much larger."""

Models = dict[int, "str | None"]
"""The SCSI controllers by index: the model if the controller sits on PCI, else None."""


def added_while_parsing(elements: Iterable[etree._Element]) -> Iterator[tuple[str, int]]:
    """Yield type and index of the controllers that libvirt adds before it assigns indexes.

    Args:
        elements: The devices of a guest.

    Raises:
        InputError: A host device needs more controllers than are allowed.
    """
    devices = list(elements)
    present = {
        index: element
        for element in devices
        if element.tag == "controller" and element.get("type") == "scsi"
        for index in [read_decimal(element, "index")]
        if index is not None
    }
    for index in _add_while_parsing(_scsi_hostdevs(devices), _models(present)):
        yield "scsi", index


def added_controllers(
    hostdevs: Iterable[etree._Element],
    disks: Iterable[etree._Element],
    present: Mapping[int, etree._Element],
) -> Iterator[tuple[int, str | None]]:
    """Yield all controllers that libvirt adds: the index, and the model or None if not on PCI.

    Args:
        hostdevs: The <hostdev> elements.
        disks: The <disk> elements.
        present: The SCSI controllers of the domain XML, by index.

    Raises:
        InputError: A host device needs more controllers than are allowed.
    """
    wanted = _scsi_hostdevs(hostdevs)
    parsing = _models({i: e for i, e in present.items() if e.get("index") is not None})
    first = list(_add_while_parsing(wanted, parsing))
    models = _models(present)
    for index in first:
        models.setdefault(index, parsing[index])
    later = list(_fill(_assigned_controllers(wanted, disks), models))
    for index in sorted({*first, *later} - set(present)):
        yield index, models[index]


def _scsi_hostdevs(elements: Iterable[etree._Element]) -> list[etree._Element]:
    return [e for e in elements if e.tag == "hostdev" and e.get("type") == "scsi"]


def _models(present: Mapping[int, etree._Element]) -> Models:
    return {
        index: element.get("model") if pci_devices.sits_on_pci(element) else None for index, element in present.items()
    }


def _add_while_parsing(hostdevs: Iterable[etree._Element], models: Models) -> Iterator[int]:
    """Add to models, and yield, the controllers that libvirt adds after each parsed host device."""
    highest = -1
    model = None
    for hostdev in hostdevs:
        controller = _checked(hostdev, drive_controller(hostdev) or 0)
        if controller > highest:
            model = models.get(controller, model)
            for index in range(highest + 1, controller + 1):
                if index not in models:
                    models[index] = model
                    yield index
            highest = controller


def _fill(wanted: Iterable[int], models: Models) -> Iterator[int]:
    """Add to models, and yield, the controllers missing up to the highest wanted one."""
    highest = -1
    model = None
    for controller in wanted:
        if controller > highest:
            highest = controller
            model = models.get(controller, model)
    for index in range(highest + 1):
        if index not in models:
            models[index] = model
            yield index


def _assigned_controllers(hostdevs: Iterable[etree._Element], disks: Iterable[etree._Element]) -> Iterator[int]:
    """Yield the controller of each host device, once libvirt has given all of them a unit."""
    given = [(hostdev, drive_controller(hostdev)) for hostdev in hostdevs]
    taken = {_disk_unit(disk) for disk in disks if disk_bus(disk) == "scsi"}
    taken |= {(controller, drive_unit(hostdev)) for hostdev, controller in given if controller is not None}
    units = (divmod(number, UNITS) for number in range(MAX_CONTROLLERS * UNITS))
    free = (unit for unit in units if unit not in taken)
    for hostdev, controller in given:
        yield _checked(hostdev, next(free, (0, 0))[0] if controller is None else controller)


def _disk_unit(disk: etree._Element) -> tuple[int, int]:
    """Return controller and unit of a SCSI disk."""
    controller = drive_controller(disk)
    if controller is not None:
        return controller, drive_unit(disk)
    target = disk.find("target")
    number = disk_number(target.get("dev", "")) if target is not None else None
    return divmod(number or 0, UNITS)


def _checked(hostdev: etree._Element, controller: int) -> int:
    if controller > MAX_CONTROLLERS:
        raise InputError(f"<hostdev>: needs {controller} SCSI controllers", source_line(hostdev))
    return controller
