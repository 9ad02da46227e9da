"""libvirt's clients define their guests again and again through the gateway: no NIC changes its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.gateway_host import GatewayHost
from tests.harness.guest_image import Image
from tests.helpers import client_sequences as sequences
from tests.helpers.client_sequences import UUID, NovaGuest
from tests.helpers.guests import complies


@pytest.fixture
def disks(root: Path) -> Iterator[Path]:
    """Return a directory with disks."""
    directory = root / "disks"
    directory.mkdir()
    for number in range(12):
        (directory / f"{number}.raw").write_bytes(bytes(1 << 20))
    yield directory
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


def test_nova(gateway: GatewayHost, disks: Path) -> None:
    """Ten hard reboots, each after a volume and a port were attached to the running server."""
    sequences.run_nova(gateway.host, disks, rounds=10)


@pytest.mark.parametrize("direct", [True, False], ids=["direct ports", "PCI aliases"])
def test_nova_with_functions(gateway: GatewayHost, disks: Path, functions: list[str], direct: bool) -> None:
    """Ten hard reboots with a further volume, port and function: each function is where libvirt alone puts it."""
    server, names = NovaGuest(disks, bus="scsi"), sequences.Names()
    for number, function in enumerate(functions[:10]):
        (server.direct_ports if direct else server.functions).append(function)
        server.volumes = min(number + 1, 12)
        server.ports.append(len(server.ports) + 1)
        gateway.via_daemon("define", "/dev/stdin", input=server.xml())
        alone = gateway.via_daemon("dumpxml", "--inactive", UUID).stdout
        gateway.via_daemon("undefine", UUID)
        through = sequences.define(gateway.host, server.xml())
        names.check(through)
        sequences.same_as_libvirt_alone(alone, through)
        gateway.host.virsh("undefine", UUID)


def test_nixvirt(gateway: GatewayHost, disks: Path) -> None:
    """Defining the same domain XML again changes nothing that would have the client restart the guest."""
    sequences.run_nixvirt(gateway.host, disks)


def test_terraform(gateway: GatewayHost, disks: Path) -> None:
    """A NIC with an address on bus 0 stays there, without a PCI controller in the domain XML."""
    sequences.run_terraform(gateway.host, disks)


def test_vagrant(gateway: GatewayHost, disks: Path) -> None:
    """What was read back is defined again at each start."""
    sequences.run_vagrant(gateway.host, disks)


def test_rename(gateway: GatewayHost, disks: Path) -> None:
    """A renamed guest keeps its layout."""
    sequences.run_rename(gateway.host, disks)


def test_virt_clone(gateway: GatewayHost, disks: Path) -> None:
    """A clone has the NICs of the original at their places, with MAC addresses of its own."""
    names = sequences.Names()
    names.check(sequences.define(gateway.host, NovaGuest(disks, volumes=2, ports=[1, 2]).xml()))
    command = ["virt-clone", "--connect", gateway.host.uri, "-o", "instance-00000001", "-n", "clone"]
    files = [part for number in range(2) for part in ("--file", str(disks / f"clone-{number}.raw"))]
    gateway.host.run([*command, *files], timeout=120)
    clone = gateway.host.dumpxml("clone", "--inactive")
    assert complies(clone)
    macs = sequences.nic_addresses(clone)
    assert not macs.keys() & names.known.keys()
    assert list(macs.values()) == list(names.known.values())


def test_virt_install_reinstall(gateway: GatewayHost, image: Image, disks: Path) -> None:
    """virt-install installs into a guest again: its NICs stay where they are, while it runs and afterwards."""
    names = sequences.Names()
    names.check(sequences.define(gateway.host, NovaGuest(disks, ports=[1, 2, 3]).xml()))
    gateway.host.run(["mkdir", "-p", "/var/lib/libvirt/boot"])  # where virt-install puts the kernel
    install = f"kernel={image.kernel},initrd={image.initrd},kernel_args=console=hvc0"
    gateway.host.run(
        ["virt-install", "--connect", gateway.host.uri, "--reinstall", UUID, "--install", install]
        + ["--osinfo", "detect=on,require=off", "--noautoconsole"]
    )
    names.check(gateway.host.virsh("dumpxml", UUID).stdout)
    names.check(gateway.host.virsh("dumpxml", "--inactive", UUID).stdout)
    gateway.host.virsh("destroy", UUID)
