"""The memory windows that the BARs of a PCI device need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..model import PciAddress
from .sysfs import device_path, read_text

_MEM, _PREFETCH, _MEM_64 = 0x200, 0x2000, 0x100000
"""IORESOURCE_MEM, IORESOURCE_PREFETCH and IORESOURCE_MEM_64 of Linux include/linux/ioport.h."""

_BARS = 6
"""A device has 6 BARs; the lines of its resource file after them are its ROM, and bridges' windows."""

WINDOW_64 = 1 << 40
WINDOW_32 = 1 << 31
"""Bytes of a vPHB's windows: SPAPR_PCI_MEM64_WIN_SIZE (1 TiB) and SPAPR_PCI_MEM32_WIN_SIZE (2 GiB) of QEMU
include/hw/pci-host/spapr.h."""


@dataclass(frozen=True)
class BarSizes:
    """Bytes of the BARs of devices, by the window of a vPHB that they go into."""

    window_64: int = 0
    window_32: int = 0

    def __add__(self, other: BarSizes) -> BarSizes:
        return BarSizes(self.window_64 + other.window_64, self.window_32 + other.window_32)

    @property
    def fits(self) -> bool:
        """Whether one vPHB has room for them."""
        return self.window_64 <= WINDOW_64 and self.window_32 <= WINDOW_32


def read_bars(address: PciAddress, sysfs: Path) -> BarSizes:
    """Return the sizes of a device's BARs; none if its sysfs cannot be read.

    A 64-bit prefetchable BAR goes into the 64-bit window, any other memory BAR into the 32-bit window.

    Args:
        address: The device on the host.
        sysfs: Where sysfs is mounted.
    """
    sizes = BarSizes()
    for line in read_text(device_path(address, sysfs) / "resource").splitlines()[:_BARS]:
        try:
            start, end, flags = (int(word, 16) for word in line.split())
        except ValueError:
            continue
        size = end - start + 1 if end > start else 0
        if flags & _MEM and flags & _MEM_64 and flags & _PREFETCH:
            sizes += BarSizes(window_64=size)
        elif flags & _MEM:
            sizes += BarSizes(window_32=size)
    return sizes
