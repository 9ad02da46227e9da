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
from .domainxml.edit import write_address
from .domainxml.text import parse, serialise
from .layout.attach import AttachView, assign_address
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
            NoSpareError: The guest has no vPHB for the device.
            NeverLaidOutError: The guest runs with a layout that has none.
        """
        if not self.views:
            return Placement(self.device)
        views = [_with_networks(view, hostdev_networks) for view in self.views]
        address = assign_address(views, share=self.config.attach_without_spare is AttachWithoutSpare.SHARE)
        tree = parse(self.device)
        write_address(tree.getroot(), address, views[0].device.usb2_group is not None)
        missing = next((view.missing for view in views if view.missing is not None), None)
        return Placement(serialise(tree, self.device), address, missing)


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
        The request; it has no views if the device has an address or does not sit on PCI, or if a
        domain XML is not to be laid out.

    Raises:
        InputError: An XML is not one that libvirt accepts.
    """
    element = parse(device).getroot()
    views = [_read_view(element, domain_xml, config) for domain_xml in domain_xmls]
    found = tuple(view for view in views if view is not None)
    return AttachRequest(device, found if len(found) == len(views) else (), config)


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
