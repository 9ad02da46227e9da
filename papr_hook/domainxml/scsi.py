"""The SCSI controllers that libvirt adds for SCSI host devices.

Those take the model of a controller that is there, so they may sit on PCI; the ones that it adds
for disks are ibmvscsi, which does not. From virDomainDefMaybeAddHostdevSCSIcontroller in
libvirt's src/conf/domain_conf.c and virDomainHostdevAssignAddress in its domain_postparse.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lxml import etree

from ..errors import InputError
from . import pci_devices
from .drives import disk_number, drive_controller, drive_unit
from .values import decimal, line_of

UNITS = 7
MOST = 1024

Models = dict[int, "str | None"]
"""The SCSI controllers by index: the model of one that sits on PCI, None for another."""


def added_while_parsing(elements: Iterable[etree._Element]) -> Iterator[tuple[str, int]]:
    """The controllers that libvirt has added before it gives the others their indexes."""
    there = list(elements)
    present = {
        index: element
        for element in there
        if element.tag == "controller" and element.get("type") == "scsi"
        for index in [decimal(element, "index")]
        if index is not None
    }
    models = _models(present)
    for index in _while_parsing(_scsi_hostdevs(there), models):
        yield "scsi", index


def added(
    hostdevs: Iterable[etree._Element],
    disks: Iterable[etree._Element],
    present: Mapping[int, etree._Element],
) -> Iterator[tuple[int, str | None]]:
    """The controllers that libvirt adds in all: their index, and their model if on PCI.

    present: those that the definition has, by index.
    """
    wanted = list(_scsi_hostdevs(hostdevs))
    indexed = {i: e for i, e in present.items() if e.get("index") is not None}
    parsing = _models(indexed)
    first = list(_while_parsing(wanted, parsing))
    models = _models(present)
    for index in first:
        models.setdefault(index, parsing[index])
    needed = _needed(_assigned(wanted, disks), models)
    for index, model in needed:
        models[index] = model
    for index in sorted({*first, *(index for index, _ in needed)} - set(present)):
        yield index, models[index]


def _scsi_hostdevs(elements: Iterable[etree._Element]) -> list[etree._Element]:
    return [e for e in elements if e.tag == "hostdev" and e.get("type") == "scsi"]


def _models(present: Mapping[int, etree._Element]) -> Models:
    return {
        index: element.get("model") if pci_devices.sits_on_pci(element) else None for index, element in present.items()
    }


def _while_parsing(hostdevs: list[etree._Element], models: Models) -> Iterator[int]:
    """Add to models what libvirt adds after each host device that it has parsed."""
    wanted: list[int] = []
    for hostdev in hostdevs:
        wanted.append(_bounded(hostdev, drive_controller(hostdev) or 0))
        for index, model in _needed(wanted, models):
            models[index] = model
            yield index


def _needed(wanted: Iterable[int], models: Models) -> list[tuple[int, str | None]]:
    """The controllers missing up to the highest wanted one, with the model they get."""
    highest = -1
    model = None
    for controller in wanted:
        if controller > highest:
            highest = controller
            model = models.get(controller, model)
    return [(index, model) for index in range(highest + 1) if index not in models]


def _assigned(hostdevs: list[etree._Element], disks: Iterable[etree._Element]) -> Iterator[int]:
    """The controller of each host device, once libvirt has given all of them a unit."""
    taken = {_disk_place(disk) for disk in disks if pci_devices.disk_bus(disk) == "scsi"}
    given = [drive_controller(hostdev) for hostdev in hostdevs]
    taken |= {
        (controller, drive_unit(hostdev)) for hostdev, controller in zip(hostdevs, given) if controller is not None
    }
    for hostdev, controller in zip(hostdevs, given):
        place = (controller or 0, 0)
        if controller is None:
            spots = ((number // UNITS, number % UNITS) for number in range(MOST * UNITS))
            place = next((spot for spot in spots if spot not in taken), place)
            taken.add(place)
        yield _bounded(hostdev, place[0])


def _disk_place(disk: etree._Element) -> tuple[int, int]:
    controller = drive_controller(disk)
    if controller is not None:
        return controller, drive_unit(disk)
    target = disk.find("target")
    number = disk_number(target.get("dev", "")) if target is not None else None
    return divmod(number or 0, UNITS)


def _bounded(hostdev: etree._Element, controller: int) -> int:
    if controller > MOST:
        raise InputError(f"<hostdev>: needs {controller} SCSI controllers", line_of(hostdev))
    return controller
