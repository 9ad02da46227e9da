"""The BARs of a passed-through device, and the windows of its vPHB."""

from __future__ import annotations

from pathlib import Path

from papr_hook.host.bars import WINDOW_32, BarSizes, read_bars
from papr_hook.model import PciAddress

LINE = "{:#018x} {:#018x} {:#018x}\n"
MEMORY, MEMORY_64, IO = 0x40200, 0x14220C, 0x40101
"""Flags of a sysfs resource file (Linux include/linux/ioport.h)."""


def test_each_bar_goes_into_its_window(tmp_path: Path) -> None:
    """I/O ports and the ROM need none."""
    device = tmp_path / "bus/pci/devices/0001:00:01.0"
    device.mkdir(parents=True)
    bars = [(0, 0xFFFF, MEMORY), (0x100000000, 0x1FFFFFFFF, MEMORY_64), (0x1000, 0x101F, IO)]
    lines = [LINE.format(*bar) for bar in bars] + [LINE.format(0, 0, 0)] * 3 + [LINE.format(0, 0xFFFFF, MEMORY)]
    (device / "resource").write_text("".join(lines))
    assert read_bars(PciAddress(1, 0, 1), tmp_path) == BarSizes(window_64=1 << 32, window_32=1 << 16)


def test_a_device_that_is_not_here_needs_none(tmp_path: Path) -> None:
    assert read_bars(PciAddress(1, 0, 1), tmp_path) == BarSizes()


def test_two_devices_may_need_more_than_a_window() -> None:
    half = BarSizes(window_32=WINDOW_32 // 2)
    assert (half + half).fits
    assert not (half + half + BarSizes(window_32=1)).fits
