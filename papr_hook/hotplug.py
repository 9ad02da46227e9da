"""Place a device that is attached: device XML and domain XMLs in, device XML with an address out.

The device is put into each domain XML, so that its IOMMU group or USB 2 set is found as it is for a layout.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lxml import etree

from . import pipeline
from .config import AttachWithoutSpare, Config
from .diagnostics import Diagnostic
from .domainxml import pci_devices
from .domainxml.text import parse
from .domainxml.write import with_address
from .layout.attach import AttachView, assign_address, find_missing
from .model import PciAddress


@dataclass(frozen=True)
class Placement:
    """The result of placing a device.

    Attributes:
        device: The device XML with its address, or the unchanged bytes if the device needs none from papr-hook.
        address: The address that was written, or None.
        missing: A warning about members of the device's endpoint that are still not passed through, or None.
    """

    device: bytes
    address: PciAddress | None = None
    missing: Diagnostic | None = None

    @property
    def place(self) -> str:
        """Return how a message names the address."""
        return "" if self.address is None else f"vPHB {self.address.bus} slot {self.address.slot}"


@dataclass(frozen=True)
class AttachRequest:
    """A device XML, and the domain XMLs that it goes into, each read once.

    Attributes:
        device: The device XML.
        views: The guest of each domain XML with the device in it; empty if the device needs no address.
        config: The host's settings.
    """

    device: bytes
    views: tuple[AttachView, ...]
    config: Config

    @property
    def unread_networks(self) -> frozenset[str]:
        """Return the libvirt networks of the guest whose files this process may not read."""
        return frozenset().union(*(view.topology.unread_networks for view in self.views))

    def place(self, hostdev_networks: frozenset[str] = frozenset()) -> Placement:
        """Choose an address and write it into the device XML.

        Args:
            hostdev_networks: Networks that hand out host devices, beside those known from libvirt's files.

        Raises:
            AttachRefusedError: The guest has no vPHB for the device, or QEMU would refuse it.
            NeverLaidOutError: The guest runs with a layout that has no vPHB for it.
        """
        if not self.views:
            return Placement(self.device)
        views = [_with_networks(view, hostdev_networks) for view in self.views]
        address = assign_address(views, share=self.config.attach_without_spare is AttachWithoutSpare.SHARE)
        device = with_address(self.device, address, views[0].device.usb2_group is not None).data
        return Placement(device, address, find_missing(views))


def may_need_address(device: bytes) -> bool:
    """Return whether a device is one that sits on PCI.

    Raises:
        InputError: The device XML is not one that libvirt accepts.
    """
    root = parse(device).getroot()
    return pci_devices.device_kind(root) != "controller pci" and pci_devices.sits_on_pci(root)


def read_request(device: bytes, domain_xmls: Sequence[bytes], config: Config) -> AttachRequest:
    """Read a device XML and the domain XMLs that the device goes into.

    Args:
        device: The device XML.
        domain_xmls: The domain XML of the running guest, that of its next start, or both.
        config: The host's settings.

    Returns:
        The request. It has no views if the device has an address, if the device does not sit on PCI, or if a domain
        XML is not to be laid out.

    Raises:
        InputError: An XML is not one that libvirt accepts.
    """
    element = parse(device).getroot()
    views = [_read_view(element, domain_xml, config) for domain_xml in domain_xmls]
    found = tuple(view for view in views if view is not None)
    return AttachRequest(device, found if len(found) == len(views) else (), config)


def keep_address(device: bytes, domain_xmls: Sequence[bytes], config: Config) -> bytes:
    """Give a device that is updated the address of the device that it replaces.

    libvirt replaces a device in the domain XML for the next start as a whole (qemuDomainUpdateDeviceConfig in its
    src/qemu/qemu_driver.c). In a running guest it changes the device in place.

    Args:
        device: The device XML of the update.
        domain_xmls: The domain XMLs that it applies to.
        config: The host's settings.

    Returns:
        The device XML with the address. It is unchanged if it has an address, or if the update is not for the next
        start. It is also unchanged if the running guest has the device at another address.

    Raises:
        InputError: An XML is not one that libvirt accepts.
        NoSpareError: The old device is not on PCI, and the guest has no vPHB for the new one.
    """
    element = parse(device).getroot()
    replaced = [_find_replaced(element, domain_xml, config) for domain_xml in domain_xmls]
    found = [old for old in replaced if old is not None]
    addresses = {old.address for old in found}
    if _has_address(element) or len(found) < len(replaced) or all(old.running for old in found) or len(addresses) != 1:
        return device
    address = addresses.pop()
    if address is None:
        without = [_remove_device(element, domain_xml) for domain_xml in domain_xmls]
        return read_request(device, without, config).place().device
    return with_address(device, address, shared=any(old.is_multifunction for old in found)).data


@dataclass(frozen=True)
class _Replaced:
    """A device of a domain XML that an update replaces.

    Attributes:
        address: Its PCI address, or None if it is not on PCI.
        is_multifunction: Whether its address says that its slot has further functions.
        running: Whether the domain XML is that of a running guest.
    """

    address: PciAddress | None
    is_multifunction: bool
    running: bool


def _find_replaced(device: etree._Element, domain_xml: bytes, config: Config) -> _Replaced | None:
    """Return the device that an update of a domain XML replaces, or None if there is none for papr-hook."""
    analysis = pipeline.analyze(domain_xml, config)
    root = analysis.domain.tree.getroot()
    same = _same_devices(device, root)
    if analysis.guest is None or analysis.domain.guest is None or len(same) != 1:
        return None
    old = dict(zip(analysis.domain.elements, analysis.guest.devices)).get(same[0])
    at = same[0].find("address")
    return _Replaced(
        address=old.address if old is not None else None,
        is_multifunction=at is not None and at.get("multifunction") == "on",
        running=root.get("id") is not None,
    )


def _remove_device(device: etree._Element, domain_xml: bytes) -> bytes:
    """Return a domain XML without the device that an update replaces."""
    tree = parse(domain_xml)
    for old in _same_devices(device, tree.getroot()):
        parent = old.getparent()
        if parent is not None:
            parent.remove(old)
    return etree.tostring(tree)


def _same_devices(device: etree._Element, root: etree._Element) -> list[etree._Element]:
    return [element for element in root.iterfind("devices/*") if _is_same_device(element, device)]


def _is_same_device(element: etree._Element, device: etree._Element) -> bool:
    """Return whether libvirt takes an element for the device of an update: a disk by its target, a NIC by its MAC."""
    if element.tag != device.tag:
        return False
    path, name = {"disk": ("target", "dev"), "interface": ("mac", "address")}.get(str(device.tag), ("alias", "name"))
    keys = [found.get(name, "").lower() for found in (element.find(path), device.find(path)) if found is not None]
    return len(keys) == 2 and keys[0] == keys[1] != ""


def _has_address(device: etree._Element) -> bool:
    at = device.find("address")
    return at is not None and bool(set(at.attrib) - {"type", "multifunction"})


def _read_view(device: etree._Element, domain_xml: bytes, config: Config) -> AttachView | None:
    """Return the guest of a domain XML with the device in it, or None if the device needs no address there."""
    tree = parse(domain_xml)
    holder = tree.getroot().find("devices")
    if holder is None:
        return None
    added = copy.deepcopy(device)
    added.tail = None
    holder.append(added)
    analysis = pipeline.analyze(etree.tostring(tree), config)
    holder = analysis.domain.tree.getroot().find("devices")
    if analysis.guest is None or analysis.domain.guest is None or holder is None:
        return None
    new = holder[-1]
    position = next((n for n, element in enumerate(analysis.domain.elements) if element is new), None)
    if position is None or analysis.guest.devices[position].address is not None:
        return None
    return AttachView(
        guest=analysis.guest,
        position=position,
        topology=analysis.topology,
        running=tree.getroot().get("id") is not None,
    )


def _with_networks(view: AttachView, hostdev_networks: frozenset[str]) -> AttachView:
    topology = view.topology
    return replace(view, topology=replace(topology, hostdev_networks=topology.hostdev_networks | hostdev_networks))
