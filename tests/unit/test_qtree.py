"""What "info qtree" prints, as QEMU 7.2 does it."""

from __future__ import annotations

from papr_hook.doctor.qtree import QemuDevice, QemuPhb, parse_qtree

TEXT = """\
bus: main-system-bus
  type System
  dev: spapr-pci-host-bridge, id "ua-second"
    gpio-out "" 1
    index = 10 (0xa)
    pcie-extended-configuration-space = true
    bus: ua-second.0
      type PCI
      dev: pci-bridge, id "pci.5"
        addr = 02.0
        class PCI bridge, addr 00:02.0, pci id 1b36:0001 (sub 0000:0000)
        bus: pci.5
          type PCI
          dev: e1000e, id "behind"
            addr = 07.0
      dev: ich9-usb-ehci1, id "usb7"
        addr = 1f.7
        acpi-index = 0 (0x0)
        bus: usb7.0
          type usb-bus
          dev: usb-tablet, id "input0"
            port = "1"
            addr = 2
  dev: spapr-pci-host-bridge, id ""
    index = 0 (0x0)
    pcie-extended-configuration-space = false
    bus: pci.0
      type PCI
  dev: spapr-vio-bridge, id ""
    bus: spapr-vio
      type spapr-vio-bus
      dev: spapr-nvram, id "nvram@71000000"
        reg = 1895825408 (0x71000000)
"""


def test_phbs_and_what_is_on_them() -> None:
    """PHBs come by index, each with the devices of its own bus."""
    devices = (QemuDevice("pci-bridge", "pci.5", 2, 0), QemuDevice("ich9-usb-ehci1", "usb7", 31, 7))
    expected = (QemuPhb(0, "", False, ()), QemuPhb(10, "ua-second", True, devices))
    assert parse_qtree(TEXT) == expected
    assert parse_qtree(TEXT.replace("\n", "\r\n")) == expected


def test_no_phbs() -> None:
    """Text of another kind has none."""
    assert parse_qtree("") == ()
    assert parse_qtree("Error: no\n") == ()
