"""Clients through the gateway and past it, on hosts with systemd and polkit: the same outcome, but for the layout.

The clients that are indifferent to polkit and to the release are in tests/integration.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import guest
from tests.harness.booted_host import BootedHost
from tests.harness.guest_image import Image
from tests.helpers.installation import (
    CLIENTS,
    CONF,
    CROWDED,
    GATEWAY,
    INSTALL,
    UPSTREAM,
    directly,
    pci_roots,
)
from tests.helpers.polling import wait_until

URI = "qemu:///system?socket="
CLIENT_PACKAGES = "virtinst libsys-virt-perl libvirt-dbus ipxe-qemu"
NIC = "<interface type='user'><mac address='52:54:00:00:01:{:02x}'/><model type='virtio'/></interface>"


@pytest.fixture(scope="module")
def gated(host: BootedHost) -> Iterator[BootedHost]:
    """A host with a gateway, with clients, and with users who may use libvirt and who may not; what goes past the
    gateway meets no hook that would refuse it."""
    host.run(INSTALL)
    host.write(CONF, "[papr-hook]\non_noncompliant_start = warn\n")
    host.sh(f"DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install {CLIENT_PACKAGES}")
    host.sh("useradd -m -G libvirt member; useradd -m stranger; mkdir -p /srv/pool")
    yield host
    host.run(INSTALL, "--uninstall")


@pytest.fixture(autouse=True)
def tidy(gated: BootedHost) -> Iterator[None]:
    """After a test no guest is left, no process that serves a client, and no descriptor more than before."""
    before = descriptors(gated)
    yield
    for name in directly(gated, "list", "--all", "--name").stdout.split():
        directly(gated, "destroy", name, check=False)
        directly(gated, "undefine", name, check=False)
    wait_until(lambda: served(gated) == 0)
    assert descriptors(gated) == before


def gateway_pid(host: BootedHost) -> str:
    """The process that accepts clients; a client has it started."""
    host.virsh("uri")
    return host.run("systemctl", "show", "-p", "MainPID", "--value", GATEWAY).stdout.strip()


def descriptors(host: BootedHost) -> int:
    """Return how many file descriptors the gateway's main process has, but for those to its relays."""
    pid = gateway_pid(host)
    return len(host.sh(f"ls /proc/{pid}/fd").stdout.split()) - len(relays(host, pid))


def relays(host: BootedHost, pid: str) -> list[str]:
    """Return the processes that serve clients, one for each identity; they linger when the last client has gone."""
    return host.run("pgrep", "-x", "papr-relay", "-P", pid, check=False).stdout.split()


def served(host: BootedHost) -> int:
    """Return how many clients are connected.

    A relay has two or three sockets beside two for each client. Its standard output is a socket of the journal.
    """
    pid = host.run("systemctl", "show", "-p", "MainPID", "--value", GATEWAY).stdout.strip()
    script = "ls -l /proc/{}/fd | awk '$9 > 2 && /socket:/' | wc -l"
    counts = [host.sh(script.format(relay)).stdout for relay in relays(host, pid)]
    return sum((int(count) - 2) // 2 for count in counts)


def both(host: BootedHost, *argv: str, before: str = "true") -> subprocess.CompletedProcess[str]:
    """Run a command for which URI is a placeholder, past the gateway and through it; the same must come of it.

    before: a script that makes both begin alike. Returns what came of it through the gateway.
    """
    results = []
    for socket in (UPSTREAM, CLIENTS):
        host.sh(before)
        done = host.run(*[word.replace("URI", URI + socket) for word in argv], check=False)
        results.append((done.returncode, *(text.replace(socket, "SOCKET") for text in (done.stdout, done.stderr))))
    assert results[0] == results[1]
    return done


GONE = "virsh -q destroy crowd 2>/dev/null; virsh -q undefine crowd 2>/dev/null; true"


@pytest.mark.parametrize("command", ["define", "define --validate", "create --paused"])
def test_definitions(gated: BootedHost, command: str) -> None:
    """virsh says the same of a definition; the guest has its layout."""
    gated.write("/srv/crowd.xml", CROWDED)
    said = both(gated, "virsh", "-q", "-c", "URI", *command.split(), "/srv/crowd.xml", before=GONE)
    assert said.returncode == 0, said.stderr
    assert pci_roots(gated) == 6


def test_what_is_no_definition(gated: BootedHost) -> None:
    """libvirt says what it says of a definition that it does not take."""
    for name, xml in {"noise": "noise", "cut": CROWDED[:300], "model": CROWDED.replace("pci-root", "nonsense")}.items():
        gated.write(f"/srv/{name}.xml", xml)
        assert both(gated, "virsh", "-q", "-c", "URI", "define", f"/srv/{name}.xml").returncode == 1


def test_attach_and_detach(gated: BootedHost) -> None:
    """NICs and a disk get vPHBs of their own in both definitions, until there is none; without them, they are gone."""
    gated.virsh("define", "/dev/stdin", input=CROWDED)
    gated.virsh("start", "--paused", "crowd")
    gated.sh("truncate -s 1M /srv/pool/disk.raw; chmod 666 /srv/pool/disk.raw")
    for number in range(3):
        gated.write("/srv/nic.xml", NIC.format(number))
        gated.virsh("attach-device", "crowd", "/srv/nic.xml", "--live", "--config")
    gated.virsh("attach-disk", "crowd", "/srv/pool/disk.raw", "vdb", "--targetbus", "virtio", "--live", "--config")
    for flags in ([], ["--inactive"]):
        found = gated.virsh("dumpxml", "crowd", *flags).stdout
        addresses = re.findall(r"<address type='pci' domain='0x0000' bus='(\S+)' slot='0x01'", found)
        assert len(addresses) == len(set(addresses)) == 6
    gated.write("/srv/nic.xml", NIC.format(9))
    refusal = gated.virsh("attach-device", "crowd", "/srv/nic.xml", "--live", check=False)
    assert refusal.returncode == 1
    assert "papr-hook: guest 'crowd': no empty vPHB is left" in refusal.stderr
    gated.virsh("detach-interface", "crowd", "user", "--mac", "52:54:00:00:01:00", "--config")
    gated.virsh("detach-disk", "crowd", "vdb", "--config")
    assert gated.virsh("dumpxml", "crowd", "--inactive").stdout.count("slot='0x01'") == 4


def test_hotplug_into_linux(gated: BootedHost, image: Image) -> None:
    """A running Linux sees an attached NIC and disk, each in a PCI domain of its own, and lets them go again."""
    console = "/var/log/libvirt/qemu/crowd.console"
    inside = Image(Path("/srv/vmlinux"), Path("/srv/initrd"))
    for file, place in ((image.kernel, inside.kernel), (image.initrd, inside.initrd)):
        gated.run("sh", "-c", 'cat >"$1"', "sh", str(place), input=file.read_bytes())
    gated.sh("truncate -s 1M /srv/pool/disk.raw; chmod 666 /srv/pool/disk.raw")
    gated.virsh("define", "/dev/stdin", input=guest.domain("crowd", inside, Path(console), NIC.format(1)))
    gated.virsh("start", "crowd")
    seen = guest.wait_for(gated.outside(console))
    gated.write("/srv/nic.xml", NIC.format(9))
    gated.virsh("attach-device", "crowd", "/srv/nic.xml", "--live", "--config")
    gated.virsh("attach-disk", "crowd", "/srv/pool/disk.raw", "vdb", "--targetbus", "virtio", "--live")
    mac = "52:54:00:00:01:09"
    seen = guest.wait_for(gated.outside(console), lambda now: bool(now.by_mac(mac) and now.by_disk("vda")))
    assert len({device.domain for device in seen.devices}) == len(seen.devices) == 3
    gated.virsh("detach-interface", "crowd", "user", "--mac", mac, "--live", "--config")
    gated.virsh("detach-disk", "crowd", "vdb", "--live")
    guest.wait_for(gated.outside(console), lambda now: not (now.by_mac(mac) or now.by_disk("vda")))
    wait_until(lambda: mac not in gated.virsh("dumpxml", "crowd").stdout)


def test_virt_install(gated: BootedHost) -> None:
    """virt-install creates a guest with the layout, and virt-xml keeps it."""
    gated.sh("truncate -s 1M /srv/pool/disk.raw; chmod 666 /srv/pool/disk.raw")
    options = (
        "--connect qemu:///system --name crowd --memory 256 --arch ppc64 --machine pseries --virt-type qemu --osinfo "
        "detect=off,require=off --network none --graphics none --noautoconsole --import --disk /srv/pool/disk.raw"
    )
    gated.run("virt-install", *options.split())
    before = pci_roots(gated, "--inactive")
    assert before > 5
    gated.run("virt-xml", "--connect", "qemu:///system", "crowd", "--add-device", "--rng", "/dev/urandom", "--define")
    assert pci_roots(gated, "--inactive") == before + 1


def test_libvirt_dbus(gated: BootedHost) -> None:
    """libvirt-dbus, which Cockpit uses, defines a guest and attaches a device, as a user whom a polkit rule lets in."""
    call = ("busctl", "call", "org.libvirt")
    connection = ("/org/libvirt/QEMU", "org.libvirt.Connect")
    gated.run(*call, *connection, "DomainDefineXML", "s", CROWDED)
    assert gated.run("ps", "-o", "user=", "-C", "libvirt-dbus").stdout.strip() == "libvirtdbus"
    found = gated.run(*call, *connection, "DomainLookupByName", "s", "crowd").stdout
    domain = found.split()[1].strip('"')
    config = "2"  # VIR_DOMAIN_AFFECT_CONFIG
    for number in (1, 2):
        gated.run(*call, domain, "org.libvirt.Domain", "AttachDevice", "su", NIC.format(number), config)
    gated.sh("kill $(pidof libvirt-dbus)")
    assert pci_roots(gated) == 6
    assert gated.run("papr-hook", "check", "-c", "qemu:///system", "crowd").returncode == 0
    assert gated.virsh("dumpxml", "crowd").stdout.count("<interface") == 2


def test_rights(gated: BootedHost) -> None:
    """root, a member of libvirt's group and a stranger get the same answers, of polkit too, through it and past it."""
    for user, allowed in (("root", True), ("member", True), ("stranger", False)):
        for command in ("uri", "list --all", "pool-list --all"):
            said = both(gated, "runuser", "-u", user, "--", "virsh", "-q", "-c", "URI", *command.split())
            assert (said.returncode == 0) == allowed, said
    gated.write("/srv/crowd.xml", CROWDED)
    gated.sh("runuser -u member -- virsh -q -c qemu:///system define /srv/crowd.xml")
    assert pci_roots(gated) == 6


# libvirt keeps others waiting while 20 clients have connected and not said who they are (max_anonymous_clients), so all
# of them ask before any answer is waited for.
MANY = """
import socket, struct, sys
def ask():
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    one.sendall(struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 0, 0))  # REMOTE_PROC_AUTH_LIST
    return one
def answer(one):
    size, = struct.unpack(">I", one.recv(4, socket.MSG_WAITALL))
    return one.recv(size - 4, socket.MSG_WAITALL)
answers = set()
for _ in range(1000):
    with ask() as one:
        answers.add(answer(one))
many = [ask() for _ in range(200)]
answers |= {answer(one) for one in many}
print(len(answers))
"""
