"""Guests of the POWER host: their domain XML, and what libvirt and their own Linux say of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.harness import guest
from tests.harness.guest_image import Image
from tests.harness.guest_inventory import Inventory, parse_inventory
from tests.helpers.domain_xml import mac, nic

from .host import PowerHost
from .image import LAST_CHARACTERS, PowerError

UPSTREAM = "qemu+unix:///system?socket=/run/libvirt/upstream/libvirt-sock"
"""libvirt's own socket, past the gateway."""

IMAGE = Image(Path("/var/lib/libvirt/images/vmlinux"), Path("/var/lib/libvirt/images/initrd"))
"""What guests boot, as the host sees it."""

FEATURES = "<cfpc value='broken'/><sbbc value='broken'/><ibs value='broken'/><ccf-assist state='off'/>"
"""What an emulated POWER9 cannot give to its guests."""

TWO_NICS = nic(1) + nic(2)
"""Emulated NICs; libvirt alone places both on vPHB 0, which does not comply."""

TWO_MACS = (mac(1), mac(2))

BOOT_SECONDS = 900.0
WAIT_SECONDS = 600.0
POLL_SECONDS = 3.0
"""A command in the host takes a second of it."""


def domain(name: str, devices: str, *, virt: str = "kvm", extra: str = "") -> str:
    """Return the domain XML of a guest that boots the test guest's Linux.

    Args:
        name: Its name.
        devices: The XML of its devices.
        virt: The domain type, kvm or qemu.
        extra: XML in front of <devices>.
    """
    text = guest.domain(name, IMAGE, Path(_console(name)), devices, virt=virt, extra=extra)
    return text.replace("<htm state='off'/>", "<htm state='off'/>" + FEATURES)


@contextmanager
def defined(host: PowerHost, name: str, xml: str, uri: str = "qemu:///system") -> Iterator[None]:
    """Define a guest, and remove it in the end with all that it left.

    Args:
        host: The host.
        name: The guest's name.
        xml: Its domain XML.
        uri: The libvirt connection that defines it.
    """
    host.run("virsh", "-q", "-c", uri, "define", "/dev/stdin", input=xml)
    try:
        yield
    finally:
        host.sh(
            f"virsh -q destroy {name}; virsh -q undefine {name} --managed-save; rm -f {_console(name)}", check=False
        )


def wait_for(host: PowerHost, name: str, *macs: str) -> Inventory:
    """Return what a guest's Linux sees, once it sees some NICs.

    Raises:
        PowerError: The guest does not report them in time. The message has the last lines of its console.
    """
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        text = host.run("cat", _console(name), check=False).stdout
        found = parse_inventory(text)
        if found is not None and all(found.by_mac(address) is not None for address in macs):
            return found
        if time.monotonic() > deadline or host.virsh("domstate", name).stdout.strip() != "running":
            log = host.run("tail", "-n", "20", f"/var/log/libvirt/qemu/{name}.log", check=False).stdout
            raise PowerError(f"guest '{name}' does not report {' '.join(macs)}\n{text[-LAST_CHARACTERS:]}\n{log}")
        time.sleep(POLL_SECONDS)


def addresses(inventory: Inventory) -> Mapping[str, str]:
    """Return the PCI addresses of a guest's NICs, by their MAC addresses."""
    return {device.mac: device.address for device in inventory.devices if device.mac is not None}


def iommu_groups(inventory: Inventory, *macs: str) -> set[int | None]:
    """Return the IOMMU groups that some NICs of a guest are in."""
    return {device.iommu_group for address in macs if (device := inventory.by_mac(address)) is not None}


def locked_memory_kib(host: PowerHost, name: str) -> int:
    """Return the locked-memory limit of a guest's QEMU, in KiB, as prlimit(1) has it in bytes."""
    command = f"prlimit --memlock --raw --noheadings --output SOFT --pid $(cat /run/libvirt/qemu/{name}.pid)"
    return int(host.sh(command).stdout) // 1024


def wait_until(host: PowerHost, condition: str) -> None:
    """Wait until a shell command succeeds in the host.

    Raises:
        PowerError: It does not in time.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while (done := host.sh(condition, check=False)).returncode != 0:
        if time.monotonic() > deadline:
            raise PowerError(f"not true in {WAIT_SECONDS:.0f} s: {condition}\n{done.stdout}{done.stderr}")
        time.sleep(POLL_SECONDS)


def _console(name: str) -> str:
    """Return the file in the host that has the output of a guest's console."""
    return f"/var/log/libvirt/qemu/{name}.console"
