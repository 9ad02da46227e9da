"""The hook on a real host: how it is put there, and guests for it to judge."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness.libvirt_host import Host
from tests.helpers.paths import PROJECT

HOOK = "/etc/libvirt/hooks/qemu"
CALLS = "/run/hook-calls"

DISK = """<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2'/>
  <source file='{file}'/>
  <target dev='{target}' bus='virtio'/>
  {address}
</disk>
"""
NIC = """<interface type='user'>
  <mac address='{mac}'/>
  <model type='{model}'/>
  {address}
</interface>
"""


def at(bus: int, slot: int, function: int = 0) -> str:
    """A PCI address."""
    return f"<address type='pci' domain='0x0000' bus='{bus:#04x}' slot='{slot:#04x}' function='{function:#x}'/>"


def mac(number: int) -> str:
    """A MAC address."""
    return f"52:54:00:00:01:{number:02x}"


def install(host: Host, conf: str = "", project: Path = PROJECT, record: bool = False) -> None:
    """Put the hook onto a host, as its installer does, and have libvirtd find it.

    conf: settings of /etc/papr-hook.conf; record: also write each call and its exit status to CALLS.
    """
    script = (PROJECT / "hooks/qemu").read_text(encoding="utf-8")
    script = re.sub("(?m)^lib=.*$", f"lib={project}", script)
    host.write("/etc/papr-hook.conf", f"[papr-hook]\n{conf}")
    if record:
        host.write("/etc/libvirt/hooks/papr-hook", script, 0o755)
        script = f'#!/bin/sh\n/etc/libvirt/hooks/papr-hook "$@"\nstatus=$?\necho "$* $status" >>{CALLS}\nexit $status\n'
    host.write(HOOK, script, 0o755)
    host.reload()


def uninstall(host: Host) -> None:
    """Take the hook away again."""
    host.run(["rm", "-f", HOOK, "/etc/libvirt/hooks/papr-hook", "/etc/papr-hook.conf", CALLS])
    host.reload()


def calls(host: Host) -> list[str]:
    """The calls since the hook was put there, each with its exit status."""
    return host.run(["sh", "-c", f"[ ! -e {CALLS} ] || cat {CALLS}"]).stdout.splitlines()


def pc_shaped(disk: Path) -> str:
    """Devices as a PC has them, as far as libvirt lets a pseries guest have that: a PCI bridge with a disk behind
    it, and six devices on bus 0."""
    return (
        "<controller type='pci' index='0' model='pci-root'/>\n"
        f"<controller type='pci' index='1' model='pci-bridge'>{at(0, 1)}</controller>\n"
        f"<controller type='usb' index='0' model='qemu-xhci'>{at(0, 2)}</controller>\n"
        + DISK.format(file=disk, target="vda", address=at(1, 1))
        + NIC.format(mac=mac(1), model="virtio", address=at(0, 3))
        + NIC.format(mac=mac(2), model="e1000e", address=at(0, 4))
        + f"<rng model='virtio'><backend model='random'>/dev/urandom</backend>{at(0, 5)}</rng>\n"
        + f"<watchdog model='i6300esb'>{at(0, 6)}</watchdog>\n"
        + f"<memballoon model='virtio'>{at(0, 7)}</memballoon>\n"
    )


def crowded() -> str:
    """Two NICs on one vPHB: the least that does not comply."""
    return (
        "<controller type='pci' index='0' model='pci-root'/>\n"
        + NIC.format(mac=mac(1), model="virtio", address=at(0, 1))
        + NIC.format(mac=mac(2), model="virtio", address=at(0, 2))
    )
