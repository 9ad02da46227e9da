"""Define and change guests in the sequences of libvirt's clients, and check that each NIC keeps its place.

The order of the elements is that of each client's own code: nova/virt/libvirt/driver.py (_get_guest_config),
NixVirt's module, terraform-provider-libvirt's domain definition and vagrant-libvirt's domain.xml.erb.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from papr_hook import domainxml
from papr_hook.model import Device, Guest, PciAddress
from tests.helpers.domain_xml import hostdev, mac
from tests.helpers.guests import complies

UUID = "1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9"


class Virsh(Protocol):
    """A host whose clients come through the gateway."""

    def virsh(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run virsh."""


def nic(number: int) -> str:
    """Return a NIC without an address. Without its ROM, it needs no file of the host."""
    return (
        f"<interface type='user'><mac address='{mac(number)}'/><model type='virtio'/><rom enabled='no'/></interface>\n"
    )


def function_nic(number: int, source: str) -> str:
    """Return a virtual function as an <interface>, without an address in the guest."""
    domain, bus, rest = source.split(":")
    slot, function = rest.split(".")
    return (
        f"<interface type='hostdev' managed='yes'><mac address='{mac(number)}'/><source><address type='pci' "
        f"domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source></interface>\n"
    )


def volume(number: int, disks: Path, bus: str = "virtio") -> str:
    """Return a raw disk."""
    letter = chr(ord("a") + number)
    prefix = "vd" if bus == "virtio" else "sd"
    return (
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file='{disks}/{number}.raw'/><target dev='{prefix}{letter}' bus='{bus}'/></disk>\n"
    )


def domain_xml(name: str, devices: Sequence[str], uuid: str = UUID) -> str:
    """Return domain XML as clients write it: with a UUID, and without PCI controllers and addresses."""
    return (
        f"<domain type='qemu'>\n<uuid>{uuid}</uuid>\n<name>{name}</name>\n<memory unit='MiB'>256</memory>\n"
        "<vcpu>1</vcpu>\n<os><type arch='ppc64' machine='pseries'>hvm</type></os>\n<features><htm state='off'/>"
        f"</features>\n<devices>\n{''.join(devices)}</devices>\n</domain>\n"
    )


@dataclass
class NovaGuest:
    """A server of Nova: its volumes, ports and passed-through functions in the order in which it got them."""

    disks: Path
    bus: str = "virtio"
    volumes: int = 1
    ports: list[int] = field(default_factory=lambda: [1])
    functions: list[str] = field(default_factory=list)
    direct_ports: list[str] = field(default_factory=list)

    def xml(self, uuid: str = UUID) -> str:
        """Return the domain XML of a hard reboot: storage, ports, input, random numbers, functions, balloon."""
        devices = ["<controller type='scsi' index='0' model='virtio-scsi'/>\n"] if self.bus == "scsi" else []
        devices = [volume(number, self.disks, self.bus) for number in range(self.volumes)] + devices
        devices += [nic(number) for number in self.ports]
        devices += [function_nic(0x80 + number, source) for number, source in enumerate(self.direct_ports)]
        devices += ["<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n"]
        devices += [f"{hostdev(source)}\n" for source in self.functions]
        devices += ["<memballoon model='virtio'><stats period='10'/></memballoon>\n"]
        return domain_xml("instance-00000001", devices, uuid)


def define(host: Virsh, xml: str) -> str:
    """Define domain XML, and return what libvirt made of it."""
    host.virsh("define", "/dev/stdin", input=xml)
    return host.virsh("dumpxml", "--inactive", UUID).stdout


def _addresses(xml: str) -> Iterator[tuple[Device, PciAddress]]:
    """Yield the PCI devices with the addresses that the guest sees: the PCI domain is the vPHB's target index."""
    guest = read_pseries(xml)
    targets = {phb.index: phb.target for phb in guest.phbs}
    for device in guest.devices:
        assert device.address is not None, device.name
        target = targets[device.address.bus]
        assert target is not None
        yield device, PciAddress(target, 0, device.address.slot, device.address.function)


def read_pseries(xml: str) -> Guest:
    """Return the guest of domain XML."""
    guest = domainxml.read(xml.encode()).guest
    assert guest is not None
    return guest


def nic_addresses(xml: str) -> dict[str, PciAddress]:
    """Return the guest's PCI addresses of the NICs by MAC address."""
    return {device.mac: address for device, address in _addresses(xml) if device.mac is not None}


def hostdev_addresses(xml: str) -> dict[str, PciAddress]:
    """Return the guest's PCI addresses of the passed-through devices by their addresses on the host."""
    return {str(device.source): address for device, address in _addresses(xml) if device.source is not None}


class Names:
    """The guest's PCI addresses of its NICs. A NIC that changes its address changes its name."""

    def __init__(self) -> None:
        self.known: dict[str, PciAddress] = {}

    def check(self, xml: str) -> None:
        """Assert that domain XML complies and each known NIC in it has its address, and learn the new ones."""
        assert complies(xml)
        now = nic_addresses(xml)
        assert {mac: address for mac, address in now.items() if mac in self.known} == {
            mac: address for mac, address in self.known.items() if mac in now
        }
        self.known.update(now)


def attach_live(host: Virsh, device: str) -> None:
    """Attach a device to the running guest and to its domain XML."""
    host.virsh("attach-device", UUID, "/dev/stdin", "--live", "--config", input=device)


def run_nova(host: Virsh, disks: Path, rounds: int) -> Names:
    """Hard-reboot a server of Nova again and again, with a volume and a port attached to it while it runs."""
    server, names = NovaGuest(disks), Names()
    for _ in range(rounds):
        names.check(define(host, server.xml()))
        host.virsh("start", "--paused", UUID)
        attach_live(host, volume(server.volumes, disks))
        server.volumes += 1
        server.ports.append(len(server.ports) + 1)
        attach_live(host, nic(server.ports[-1]))
        names.check(host.virsh("dumpxml", UUID).stdout)
        host.virsh("destroy", UUID)
        host.virsh("undefine", UUID)
    names.check(define(host, server.xml()))
    first, *further = server.ports
    assert names.known[mac(first)] == PciAddress(0, 0, 1, 0)
    assert [names.known[mac(number)].domain for number in further] == [30 - n for n in range(rounds)]
    return names


def run_nixvirt(host: Virsh, disks: Path) -> None:
    """Compare the stored domain XML before and after the client's own is defined again: no difference, no restart."""
    own = NovaGuest(disks, volumes=3, ports=[1, 2, 3]).xml()
    before = define(host, own)
    host.virsh("start", "--paused", UUID)
    assert define(host, own) == before
    attach_live(host, nic(4))
    grown = NovaGuest(disks, volumes=3, ports=[1, 2, 3, 4]).xml()
    attached = host.virsh("dumpxml", "--inactive", UUID).stdout
    assert nic_addresses(define(host, grown)) == nic_addresses(attached)
    host.virsh("destroy", UUID)


def run_terraform(host: Virsh, disks: Path) -> None:
    """Define, read back, change and define: a NIC with an address on bus 0, and no PCI controller."""
    address = "<address type='pci' domain='0x0000' bus='0x00' slot='0x{:02x}' function='0x0'/>"
    placed = nic(1).replace("</interface>", f"{address.format(3)}</interface>")
    own = domain_xml("terraform", [volume(0, disks), placed, nic(2)])
    names = Names()
    names.check(define(host, own))
    assert names.known[mac(1)] == PciAddress(0, 0, 3, 0)
    names.check(define(host, own))
    host.virsh("undefine", UUID)
    names.check(define(host, own))


def run_vagrant(host: Virsh, disks: Path) -> None:
    """Define a box, and at each start undefine it and define what was read back, with more memory."""
    address = "<address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>"
    management = nic(1).replace("</interface>", f"{address}</interface>")
    xml, names = domain_xml("vagrant", [volume(0, disks), management, nic(2), nic(3)]), Names()
    for memory in (256, 320, 384):
        xml = define(host, re.sub("(?s)<memory.*</memory>", f"<memory unit='MiB'>{memory}</memory>", xml))
        names.check(xml)
        host.virsh("start", "--paused", UUID)
        names.check(host.virsh("dumpxml", UUID).stdout)
        host.virsh("destroy", UUID)
        host.virsh("undefine", UUID)
    assert names.known[mac(1)] == PciAddress(0, 0, 5, 0)


def run_rename(host: Virsh, disks: Path) -> None:
    """Rename a guest, and define the client's own domain XML under the new name."""
    own, names = NovaGuest(disks, volumes=2, ports=[1, 2]).xml(), Names()
    names.check(define(host, own))
    host.virsh("domrename", UUID, "renamed")
    names.check(host.virsh("dumpxml", "renamed").stdout)
    names.check(define(host, own.replace("<name>instance-00000001<", "<name>renamed<")))


def same_as_libvirt_alone(alone: str, through: str) -> None:
    """Assert that the first emulated NIC and the host devices are where libvirt alone puts them.

    Args:
        alone: what libvirt made of domain XML by itself.
        through: what it made of the same domain XML laid out.
    """
    first = next((d.mac for d in read_pseries(alone).devices if d.is_interface and not d.passthrough), None)
    if first is not None:
        assert nic_addresses(through)[first] == nic_addresses(alone)[first]
    assert hostdev_addresses(through) == hostdev_addresses(alone)
