"""A pseries guest's PCI topology: its host bridges, its devices, and their addresses.

Nothing here knows XML. domainxml reads a Guest from domain XML and writes a Layout back; layout computes a Layout from
a Guest, and checks a Guest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .diagnostics import Diagnostic
from .ranges import Ranges
from .records import Record

MAX_PHBS = 31
"""PHBs of a pseries guest, target index 0-30: SPAPR_MAX_PHBS in QEMU's include/hw/pci-host/spapr.h.

Each PHB has a window of 1 TiB in the 32 TiB from SPAPR_PCI_BASE (32 TiB) to SPAPR_PCI_LIMIT (64 TiB). The first TiB
there holds the I/O and 32-bit MMIO windows of all PHBs: 32 - 1 = 31."""

MAX_SLOT = 31
"""Slots of a pci-root that take a device are 1-31; slot 0 is the bridge's own."""


@dataclass(frozen=True, order=True)
class PciAddress:
    """A PCI address, written as sysfs and libvirt's messages write it.

    On the host, domain and bus are the kernel's. In a guest, libvirt's domain is 0 for every vPHB, and bus is the
    index of the PCI controller (libvirt docs/pci-addresses.rst).
    """

    domain: int = 0
    bus: int = 0
    slot: int = 0
    function: int = 0

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


@dataclass(frozen=True, eq=False, repr=False)
class Device(Record):
    """A device that sits on PCI.

    Attributes:
        name: What a message calls it, e.g. <disk> vda.
        kind: The tag of its element; of controllers and host devices the type too, e.g. "controller usb".
        identity: What identifies it among those of its kind in another domain XML of the guest, or None if only its
            place among them does.
        rank: The number by which libvirt sorts it among its kind, 0 if it does not sort them.
        line: Its line in the domain XML, or None if libvirt would add it implicitly.
        address: Its address in the domain XML, or None if libvirt would choose one.
        passthrough: Whether it is a device of the host, or one of its functions, and not an emulated one.
        source: The host device, if the domain XML names one.
        is_mdev: Whether it is a mediated device, which has no address on the host.
        network: The libvirt network that an interface is connected to, which may hand out host devices.
        usb2_group: Devices with the same key are functions of one USB 2 controller.
        usb2_function: The function that such a controller has in the ICH9's layout.
        multifunction: Whether its address asks for the multifunction bit of its PCI header type.
        model: Its model in the domain XML, for people; only domainxml.details reads it.
        backing: The file, block device, bridge or network behind it, likewise.
    """

    name: str
    kind: str = ""
    identity: str | None = None
    rank: int = 0
    line: int | None = None
    address: PciAddress | None = None
    passthrough: bool = False
    source: PciAddress | None = None
    is_mdev: bool = False
    network: str | None = None
    usb2_group: str | None = None
    usb2_function: int = 0
    multifunction: bool = False
    model: str | None = None
    backing: str | None = None

    @property
    def is_interface(self) -> bool:
        """Whether it is a network interface, emulated or not."""
        return self.kind == "interface"

    @property
    def mac(self) -> str | None:
        """The MAC address of a network interface in lower case, or None if none is written."""
        return self.identity.lower() if self.is_interface and self.identity is not None else None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Phb(Record):
    """A host bridge of the guest, a pci-root controller.

    Attributes:
        index: Its bus number in the domain XML, 0 or more.
        target: Its target index, which is the PCI domain that the guest sees, or None if not written.
        node: The guest NUMA cell that the domain XML gives it.
        named: Whether it has a user-defined alias, so that something may plug devices into it by that name.
        line: Its line in the domain XML.
    """

    index: int
    target: int | None = None
    node: int | None = None
    line: int | None = None
    named: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Bridge(Record):
    """A PCI controller other than a pci-root, which a pseries guest should not have.

    Attributes:
        index: Its bus number in the domain XML.
        model: Its model.
        line: Its line in the domain XML.
        address: Its own PCI address, or None if libvirt would choose one.
    """

    index: int
    model: str
    line: int | None = None
    address: PciAddress | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Cell(Record):
    """A NUMA cell of the guest.

    Attributes:
        id: Its number.
        nodes: The host's NUMA nodes that its memory comes from, empty if unknown.
        cpus: The host's processors that its vCPUs run on, empty if not all are pinned.
    """

    id: int
    nodes: Ranges = Ranges()
    cpus: Ranges = Ranges()


@dataclass(frozen=True, eq=False, repr=False)
class Memory(Record):
    """A guest's memory in KiB.

    Attributes:
        current: What the guest has.
        maximum: What it may grow to.
        hard_limit: memtune's hard_limit, or None if absent.
        locked: Whether memoryBacking asks for locked memory.
    """

    current: int = 0
    maximum: int = 0
    hard_limit: int | None = None
    locked: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Guest(Record):
    """A pseries guest as its domain XML describes it.

    Attributes:
        name: Its name.
        phbs: Its pci-root controllers.
        bridges: Its other PCI controllers.
        devices: Its devices that sit on PCI, in document order, then those that libvirt would add.
        commandline_buses: Buses that the qemu:commandline uses; its devices cannot be moved.
        commandline_slots: Slots of bus 0 that devices of the qemu:commandline name.
        commandline_uses_last_bus: Whether it also uses the vPHB with the highest index, whichever that is.
        commandline_targets: Target indexes of PHBs that it adds.
        commandline_indexes: Indexes that no pci-root can have, because its devices have the QEMU id of those.
        mode: The mode that the guest's papr:layout asks for, or None.
        spares: The number of spares that the guest's papr:layout asks for, or None.
        reserve: Buses that the guest's papr:layout keeps empty.
        cells: Its NUMA cells.
        memory: How much memory it has.
        is_kvm: Whether KVM runs it, not TCG.
        vfio: Whether it has devices that libvirt locks all of its memory for.
        unassigned: Host devices that are detached from the host but not given to the guest.
    """

    name: str
    phbs: tuple[Phb, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    devices: tuple[Device, ...] = ()
    commandline_buses: frozenset[int] = frozenset()
    commandline_slots: frozenset[int] = frozenset()
    commandline_uses_last_bus: bool = False
    commandline_targets: frozenset[int] = frozenset()
    commandline_indexes: frozenset[int] = frozenset()
    mode: str | None = None
    spares: int | None = None
    reserve: frozenset[int] = frozenset()
    cells: tuple[Cell, ...] = ()
    memory: Memory = Memory()
    is_kvm: bool = True
    vfio: bool = False
    unassigned: frozenset[PciAddress] = frozenset()

    @property
    def used_by_commandline(self) -> frozenset[int]:
        """The buses that the qemu:commandline uses, including the last one if it uses that."""
        indexes = {phb.index for phb in self.phbs}
        last = {max(indexes)} if self.commandline_uses_last_bus and indexes else set()
        return self.commandline_buses | last


@dataclass(frozen=True, eq=False, repr=False)
class HostDevice(Record):
    """A PCI device of the host, as far as its sysfs could be read.

    Attributes:
        address: Its address on the host.
        iommu_group: Its IOMMU group.
        pci_class: Its class code, 24 bits.
        driver: The driver that it is bound to.
        node: Its NUMA node.
        parent: The physical function of an SR-IOV virtual function.
        used_for: What the host itself uses it for, e.g. its default route.
        nvlink2: Whether it is a GPU with NVLink2, or the NVLink2 bridge of one.
    """

    address: PciAddress
    iommu_group: int | None = None
    pci_class: int | None = None
    driver: str | None = None
    node: int | None = None
    parent: PciAddress | None = None
    used_for: str | None = None
    nvlink2: bool = False

    @property
    def is_bridge(self) -> bool:
        """Whether it is a bridge between buses, which vfio-pci does not take.

        Those are the PCI classes 0600, 0604 and 0609. A GPU's NVLink bridge is of class 0680, and is passed through
        with its GPU.
        """
        return self.pci_class is not None and self.pci_class >> 8 in (0x0600, 0x0604, 0x0609)


@dataclass(frozen=True, eq=False, repr=False)
class HostTopology(Record):
    """What a layout needs to know about the host.

    Attributes:
        iommu_groups: The IOMMU group of each host device whose group could be read.
        hostdev_networks: The libvirt networks that hand out host devices.
        unread_networks: Networks whose files could not be read, so that they may hand out host devices.
        devices: The devices passed through, and all others of their IOMMU groups.
        node_cpus: The processors of each NUMA node.
    """

    iommu_groups: Mapping[PciAddress, int] = field(default_factory=dict)
    hostdev_networks: frozenset[str] = frozenset()
    unread_networks: frozenset[str] = frozenset()
    devices: Mapping[PciAddress, HostDevice] = field(default_factory=dict)
    node_cpus: Mapping[int, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Layout(Record):
    """Where every device of a guest goes.

    Attributes:
        phbs: All vPHBs, by index.
        addresses: The address of each of the guest's devices, in their order.
        diagnostics: What the administrator should know about it.
    """

    phbs: tuple[Phb, ...]
    addresses: tuple[PciAddress, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
