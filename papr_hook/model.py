"""What a layout is about: a pseries guest's host bridges, its devices, and where they sit.

Nothing here knows XML. domain makes a Guest from a definition, layout makes a Layout from a
Guest, check judges a Guest, and domain writes a Layout back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .diagnostics import Diagnostic
from .ranges import Ranges

MAX_PHBS = 31
"""PHBs of a pseries guest, target index 0-30: SPAPR_MAX_PHBS in QEMU's include/hw/pci-host/spapr.h.

The PHBs' windows of 1 TiB each share the 32 TiB from SPAPR_PCI_BASE (32 TiB) to SPAPR_PCI_LIMIT (64 TiB), and the
first TiB holds the I/O and 32-bit MMIO windows of all: 32 - 1 = 31."""

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


@dataclass(frozen=True)
class Device:
    """A device that sits on PCI.

    name: how a message names it, e.g. <disk> vda.
    line: where it stands in the definition; None when libvirt would add it by itself.
    address: where the definition puts it; None when the definition leaves that to libvirt.
    passthrough: it is a device of the host, or one of its functions, not an emulated one.
    source: which one, where the definition says. mediated: it has no address on the host.
    network: the libvirt network that an interface is plugged into; it may hand out host devices.
    companions: devices with the same key are functions of one USB 2 controller.
    function: the function that such a controller has by the ICH9's layout.
    """

    name: str
    line: int | None = None
    address: PciAddress | None = None
    passthrough: bool = False
    source: PciAddress | None = None
    mediated: bool = False
    network: str | None = None
    companions: str | None = None
    function: int = 0

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Phb:
    """A host bridge of the guest, a pci-root controller.

    index: its bus number in the definition, 0 or more.
    target: its target index, the PCI domain that the guest sees; None when not written.
    node: the guest NUMA cell that a person gave it.
    """

    index: int
    target: int | None = None
    node: int | None = None
    line: int | None = None


@dataclass(frozen=True)
class Bridge:
    """A PCI controller that a pseries guest should not have: anything but a pci-root.

    address: where it is plugged in, if the definition says.
    """

    index: int
    model: str
    line: int | None = None
    address: PciAddress | None = None


@dataclass(frozen=True)
class Cell:
    """A NUMA cell of the guest, and what it is bound to on the host.

    nodes: the host's NUMA nodes that its memory comes from; empty where the definition does not
    say. cpus: the host's processors that its vCPUs run on; empty where not all are pinned.
    """

    id: int
    nodes: Ranges = Ranges()
    cpus: Ranges = Ranges()


@dataclass(frozen=True)
class Memory:
    """A guest's memory in KiB: what it has, what it may grow to, and the limit that a person set."""

    current: int = 0
    maximum: int = 0
    hard_limit: int | None = None


@dataclass(frozen=True)
class Guest:
    """A pseries guest as its definition has it.

    occupied: buses that the definition's qemu:commandline uses; what is there cannot be moved.
    last_occupied: it also uses the vPHB with the highest index, whichever that is.
    taken_targets: target indexes of host bridges that the commandline adds.
    mode, spares: what the definition's own papr:layout asks for; None where it is silent.
    cells: its NUMA cells. memory: how much it has. vfio: it has devices that libvirt locks all of
    its memory for. unassigned: host devices that are taken from the host but not given to it.
    """

    name: str
    phbs: tuple[Phb, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    devices: tuple[Device, ...] = ()
    occupied: frozenset[int] = frozenset()
    last_occupied: bool = False
    taken_targets: frozenset[int] = frozenset()
    mode: str | None = None
    spares: int | None = None
    cells: tuple[Cell, ...] = ()
    memory: Memory = Memory()
    vfio: bool = False
    unassigned: frozenset[PciAddress] = frozenset()

    @property
    def used_by_commandline(self) -> frozenset[int]:
        """The buses that the qemu:commandline uses, the last one by its index too."""
        indexes = {phb.index for phb in self.phbs}
        return self.occupied | ({max(indexes)} if self.last_occupied and indexes else set())


@dataclass(frozen=True)
class HostDevice:
    """A PCI device of the host, as far as its sysfs could be read.

    group: its IOMMU group. pci_class: its class code, 24 bits. driver: what it is bound to.
    node: its NUMA node. parent: the physical function of an SR-IOV virtual one. used_for: what
    the host itself needs it for, e.g. its default route. nvlink2: a GPU's NVLink2 bridge or GPU.
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

        Those are the PCI classes 0600, 0604 and 0609; a GPU's NVLink bridge is of class 0680, and
        is passed through with its GPU.
        """
        return self.pci_class is not None and self.pci_class >> 8 in (0x0600, 0x0604, 0x0609)


@dataclass(frozen=True)
class HostTopology:
    """What a layout needs to know of the host.

    iommu_groups: the IOMMU group of each host device whose group could be read. hostdev_networks: the
    libvirt networks that hand out host devices. unread_networks: those that may, since their
    files may not be read. devices: the devices passed through, and all others of their groups.
    node_cpus: the processors of each NUMA node.
    """

    iommu_groups: Mapping[PciAddress, int] = field(default_factory=dict)
    hostdev_networks: frozenset[str] = frozenset()
    unread_networks: frozenset[str] = frozenset()
    devices: Mapping[PciAddress, HostDevice] = field(default_factory=dict)
    node_cpus: Mapping[int, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Where everything goes.

    phbs: all vPHBs, by index.
    addresses: the address of each of the guest's devices, in their order.
    diagnostics: what the administrator should know about it.
    """

    phbs: tuple[Phb, ...]
    addresses: tuple[PciAddress, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
