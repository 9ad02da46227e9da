"""The gateway in front of a real libvirtd: real clients, the same outcome as without it but for the layout."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from lxml import etree

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.gateway import protocol
from papr_hook.layout import check
from tests.harness import guest_image as guest
from tests.harness.guest_image import Image
from tests.harness.libvirt_host import Host
from tests.helpers.clients import CONSOLE, EVENTS, PERL
from tests.helpers.paths import PROJECT

from . import hooked

pytestmark = pytest.mark.real

CLIENTS = "/run/libvirt/libvirt-sock"
UPSTREAM = "/run/libvirt/upstream/libvirt-sock"
ADMIN = "libvirtd:///system?socket=/run/libvirt/upstream/libvirt-admin-sock"
PYTHON = "/usr/bin/python3"
GROUP = 4242
START = f"echo $$ >/run/gateway.pid; exec env PYTHONPATH={PROJECT} {PYTHON} -m papr_hook gateway serve "
KEEPALIVE = 0x6B656570
PING, PONG = 1, 2
CONNECT_GET_CAPABILITIES = 7
DEADLINE = 60.0
UID = 1234
GRAPHICS_CARD = (
    "<controller type='usb' index='0' model='qemu-xhci'/><graphics type='vnc'/><video><model type='vga'/></video>"
)


class Gateway:
    """A host whose libvirtd has moved its socket, and a gateway where that was."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._process: subprocess.Popen[bytes] | None = None
        config = host.read("/etc/libvirt/libvirtd.conf")
        host.run(["mkdir", "-p", "/run/libvirt/upstream"])
        host.write("/etc/group", f"{host.read('/etc/group')}peer:x:{UID}:\npeers:x:{GROUP}:\n")
        host.write("/etc/passwd", f"{host.read('/etc/passwd')}peer:x:{UID}:{UID}::/nonexistent:/bin/sh\n")
        host.write("/etc/libvirt/libvirtd.conf", f'{config}unix_sock_dir = "/run/libvirt/upstream"\n')
        host.restart()

    def start(self, arguments: str = f"--listen {CLIENTS}") -> None:
        """Start it, and wait until it serves."""
        self.host.run(["rm", "-f", CLIENTS])
        self._process = subprocess.Popen(self.host.argv(["sh", "-c", START + arguments]))
        until(lambda: self.host.virsh("uri", check=False).returncode == 0)

    def stop(self) -> None:
        """Kill it, but not the processes that serve clients."""
        if self._process is not None:
            self.host.run(["kill", "-9", str(self.pid)], check=False)
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id inside the host."""
        return int(self.host.read("/run/gateway.pid"))

    def children(self) -> list[int]:
        """The processes that serve clients."""
        return [int(line) for line in self.host.run(["pgrep", "-P", str(self.pid)], check=False).stdout.split()]

    def descriptors(self) -> int:
        """How many descriptors it has."""
        return len(self.host.run(["ls", f"/proc/{self.pid}/fd"]).stdout.split())

    def connect(self) -> socket.socket:
        """A connection of ours, with a deadline."""
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(DEADLINE)
        one.connect(str(self.host.outside(CLIENTS)))
        return one

    def python(self, program: str, *argv: str) -> str:
        """Run a libvirt-python program inside the host; what it printed."""
        return self.host.run([PYTHON, "-c", program, *argv]).stdout


def until(done: Callable[[], bool]) -> None:
    """Wait until something is true; fail when it is not in time."""
    deadline = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def gateway(root: Path, seed: Path) -> Iterator[Gateway]:
    """A host behind a gateway, which the tests share."""
    with Host(root, "gated", seed) as host:
        one = Gateway(host)
        one.start()
        yield one
        one.stop()


@pytest.fixture
def own(make_host: Callable[[str], Host]) -> Iterator[Gateway]:
    """A host behind a gateway, for a test that kills something."""
    one = Gateway(make_host("own"))
    one.start()
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test, no guest is left on the shared host, and no process that serves a client."""
    yield
    if "gateway" in request.fixturenames:
        one: Gateway = request.getfixturevalue("gateway")
        for name in one.host.virsh("list", "--all", "--name").stdout.split():
            one.host.virsh("destroy", name, check=False)
            one.host.virsh("undefine", name, "--managed-save", check=False)
        until(lambda: one.children() == [])


def old_guest(image: Image, root: Path, devices: str = "", name: str = "g", extra: str = "") -> str:
    """A definition with a crowded PHB 0."""
    text = guest.domain(name, image, root / f"{name}.console", devices or hooked.crowded(), extra=extra)
    return text.replace("</name>", "</name><uuid>6a2b0e5c-9a8f-4f0a-8b4f-0123456789ab</uuid>", 1)


def laid_out(xml: str) -> str:
    """A definition as papr-hook lays it out."""
    return pipeline.analyze(xml.encode(), Config()).apply_layout().data.decode()


def canonical(xml: str) -> str:
    """A definition without what libvirt numbers anew at each start."""
    return etree.tostring(etree.fromstring(xml), method="c14n").decode()


def complies(xml: str) -> bool:
    """Whether a definition keeps the contract."""
    return check.complies(pipeline.analyze(xml.encode(), Config()).violations())


def bus_of(xml: str, mac: str) -> int:
    """The vPHB of a NIC."""
    found = domainxml.read(xml.encode()).guest
    assert found is not None
    (address,) = [device.address for device in found.devices if mac in device.name]
    assert address is not None
    return address.bus


def directly(gateway: Gateway, *args: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run virsh on libvirt's own socket."""
    return gateway.host.run(["virsh", "-q", "-c", gateway.host.daemon_uri, *args], input=input, check=False)


def both(gateway: Gateway, *args: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run virsh through the gateway and directly, and find the same; what it said through the gateway."""
    direct = directly(gateway, *args, input=input)
    through = gateway.host.virsh(*args, input=input, check=False)
    assert (through.returncode, through.stdout, through.stderr) == (direct.returncode, direct.stdout, direct.stderr)
    return through


# Definitions


def test_define_is_laid_out(gateway: Gateway, image: Image, root: Path, disk: Path) -> None:
    """What libvirt stores is what it makes of the layout; everything that virsh says is as it was."""
    xml = old_guest(image, root, hooked.pc_shaped(disk))
    assert both(gateway, "define", "/dev/stdin", input=xml).returncode == 0
    found = gateway.host.dumpxml("g")
    assert complies(found)
    directly(gateway, "define", "/dev/stdin", input=laid_out(xml))
    assert canonical(gateway.host.dumpxml("g")) == canonical(found)


def test_define_with_validation_and_without_flags(gateway: Gateway, image: Image, root: Path) -> None:
    """Both of libvirt's procedures for a definition are laid out."""
    both(gateway, "define", "--validate", "/dev/stdin", input=old_guest(image, root))
    assert complies(gateway.host.dumpxml("g"))
    gateway.host.virsh("undefine", "g")
    program = "import libvirt, sys; libvirt.open(sys.argv[1]).defineXML(sys.argv[2])"
    gateway.python(program, gateway.host.uri, old_guest(image, root))
    assert complies(gateway.host.dumpxml("g"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("not XML", lambda xml: xml + "<"),
        ("no XML at all", lambda xml: "noise"),
        ("keep", lambda xml: xml.replace("<memory", "<metadata><a:layout xmlns:a='urn:papr-hook:domain:1' "
                                                 "mode='keep'/></metadata><memory")),
        ("broken", lambda xml: xml.replace("index='0'", "index='x'")),
        ("too many", lambda xml: xml.replace("<memballoon", "<rng model='virtio'><backend model='random'>/dev/urandom"
                                             "</backend></rng>" * 20000 + "<memballoon", 1)),
        ("x86", lambda xml: xml.replace("ppc64", "x86_64").replace("pseries", "pc").replace("hvm<", "hvm <")),
    ],
)  # fmt: skip
def test_what_cannot_be_laid_out(
    gateway: Gateway, image: Image, root: Path, name: str, change: Callable[[str], str]
) -> None:
    """It goes to libvirt as it is, and libvirt says what it would say."""
    xml = change(old_guest(image, root))
    direct = directly(gateway, "define", "/dev/stdin", input=xml)
    stored = directly(gateway, "dumpxml", "g").stdout
    directly(gateway, "undefine", "g")
    through = gateway.host.virsh("define", "/dev/stdin", input=xml, check=False)
    assert (through.returncode, through.stdout, through.stderr) == (direct.returncode, direct.stdout, direct.stderr)
    assert gateway.host.virsh("dumpxml", "g", check=False).stdout == stored


def test_create_and_autodestroy(gateway: Gateway, image: Image, root: Path) -> None:
    """A transient guest runs with the layout, and one that is to end with its client does."""
    xml = old_guest(image, root)
    gateway.host.virsh("create", "--paused", "/dev/stdin", input=xml)
    assert complies(gateway.host.dumpxml("g"))
    gateway.host.virsh("destroy", "g")
    gateway.host.write("/run/g.xml", xml)
    said = gateway.host.virsh("create --paused --autodestroy /run/g.xml; domstate g").stdout
    assert said.split()[-1] == "paused"
    until(lambda: gateway.host.virsh("domstate", "g", check=False).returncode != 0)


def test_create_with_files(gateway: Gateway, image: Image, root: Path) -> None:
    """libvirt's QEMU driver takes no files, and says so through the gateway too; the connection lives on."""
    gateway.host.write("/run/g.xml", old_guest(image, root))
    script = "exec 3</etc/hostname; exec virsh -q -c '{}' 'create --pass-fds 3,3 --paused /run/g.xml; hostname'"
    through = gateway.host.run(["sh", "-c", script.format(gateway.host.uri)], check=False)
    direct = gateway.host.run(["sh", "-c", script.format(gateway.host.daemon_uri)], check=False)
    assert (through.returncode, through.stdout, through.stderr) == (direct.returncode, direct.stdout, direct.stderr)
    assert "not supported" in through.stderr
    assert through.stdout == "gated\n"


def test_edit(gateway: Gateway, image: Image, root: Path) -> None:
    """virsh edit of a definition: what the editor makes is laid out."""
    directly(gateway, "define", "/dev/stdin", input=old_guest(image, root))
    script = f"EDITOR=\"sed -i 's/<vcpu.*vcpu>/<vcpu>2<\\/vcpu>/'\" virsh -q -c '{gateway.host.uri}' edit g"
    gateway.host.run(["sh", "-c", script])
    found = gateway.host.dumpxml("g")
    assert ">2</vcpu>" in found
    assert complies(found)


def test_preview_of_the_command_line(gateway: Gateway, image: Image, root: Path) -> None:
    """domxml-to-native shows what a start would run, layout and all."""
    xml = old_guest(image, root)
    native = ["domxml-to-native", "qemu-argv", "/dev/stdin"]
    through = gateway.host.virsh(*native, input=xml).stdout
    assert '"driver":"spapr-pci-host-bridge","index":5' in through
    # libvirt finds a free port and a random MAC address for nothing here, so the two are alike.
    assert through == directly(gateway, *native, input=laid_out(xml)).stdout


def test_hostdevs_are_defined(gateway: Gateway, image: Image, root: Path) -> None:
    """A host device gets its own vPHB."""
    hostdev = (
        "<hostdev mode='subsystem' type='pci' managed='yes'>"
        f"<source><address domain='0x0001' bus='0x01' slot='0x00' function='0x0'/></source>{hooked.at(0, 5)}</hostdev>"
    )
    both(gateway, "define", "/dev/stdin", input=old_guest(image, root, hooked.crowded() + hostdev))
    assert complies(gateway.host.dumpxml("g"))


# Starts


def test_start_of_an_old_guest(gateway: Gateway, image: Image, root: Path) -> None:
    """It is laid out, passwords and all, and then it starts; nobody is refused, with the hook behind or without."""
    graphics = GRAPHICS_CARD.replace("vnc'", "vnc' passwd='secret'")
    xml = old_guest(image, root, hooked.crowded() + graphics)
    hooked.install(gateway.host)
    try:
        directly(gateway, "define", "/dev/stdin", input=xml)
        assert directly(gateway, "start", "--paused", "g").returncode != 0
        until(lambda: complies(gateway.host.dumpxml("g")))
        directly(gateway, "define", "/dev/stdin", input=xml)
        assert not complies(gateway.host.dumpxml("g"))
        gateway.host.virsh("start", "--paused", "g")
    finally:
        hooked.uninstall(gateway.host)
    assert complies(gateway.host.dumpxml("g"))
    inactive = gateway.host.dumpxml("g", "--inactive", "--security-info")
    assert complies(inactive)
    assert "passwd='secret'" in inactive
    assert both(gateway, "start", "g").stderr.count("already active") == 1


def test_start_from_a_managed_save(gateway: Gateway, image: Image, root: Path) -> None:
    """A saved state keeps the layout that it has; the definition waits for a start without one."""
    directly(gateway, "define", "/dev/stdin", input=old_guest(image, root))
    directly(gateway, "start", "--paused", "g")
    directly(gateway, "managedsave", "g")
    gateway.host.virsh("start", "--paused", "g")
    assert not complies(gateway.host.dumpxml("g", "--inactive"))
    directly(gateway, "managedsave", "g")
    gateway.host.virsh("start", "--paused", "--force-boot", "g")
    assert complies(gateway.host.dumpxml("g", "--inactive"))


def test_migration(make_host: Callable[[str], Host], image: Image, root: Path) -> None:
    """A guest migrates from gateway to gateway, with the layout that it runs with."""
    one, two = Gateway(make_host("one")), Gateway(make_host("two"))
    for host in (one, two):
        host.start()
    directly(one, "define", "/dev/stdin", input=old_guest(image, root))
    directly(one, "start", "g")
    guest.wait_for(root / "g.console")
    one.host.migrate("g", two.host, "--persistent")
    assert two.host.virsh("domstate", "g").stdout.strip() == "running"
    assert not complies(two.host.dumpxml("g"))
    two.host.virsh("destroy", "g")
    two.host.virsh("start", "--paused", "g")
    assert complies(two.host.dumpxml("g"))
    for host in (one, two):
        host.stop()
    (root / "g.console").unlink()


# Attaching


def test_attach_and_detach_while_it_runs(gateway: Gateway, image: Image, root: Path, disk: Path) -> None:
    """A NIC and a disk get a vPHB each, in the definition and in the guest, where its Linux sees them; both leave."""
    host, console = gateway.host, root / "g.console"
    host.define(old_guest(image, root))
    host.virsh("start", "g")
    guest.wait_for(console)
    host.attach("g", hooked.NIC.format(mac=hooked.mac(9), model="virtio", address=""), "--live", "--config")
    host.virsh("attach-disk", "g", str(disk), "vdb", "--targetbus", "virtio", "--subdriver", "qcow2", "--live")
    seen = guest.wait_for(console, lambda now: bool(now.by_mac(hooked.mac(9)) and now.by_disk("vda")))
    assert len({device.domain for device in seen.devices}) == len(seen.devices) == 4
    live, config = host.dumpxml("g"), host.dumpxml("g", "--inactive")
    assert complies(live)
    assert complies(config)
    assert bus_of(live, hooked.mac(9)) == bus_of(config, hooked.mac(9))
    host.virsh("detach-interface", "g", "user", "--mac", hooked.mac(9), "--live", "--config")
    host.virsh("detach-disk", "g", "vdb", "--live")
    guest.wait_for(console, lambda now: not (now.by_mac(hooked.mac(9)) or now.by_disk("vda")))
    until(lambda: hooked.mac(9) not in host.dumpxml("g"))
    host.attach("g", hooked.NIC.format(mac=hooked.mac(9), model="virtio", address=""), "--config")
    assert complies(host.dumpxml("g", "--inactive"))
    assert hooked.mac(9) not in host.dumpxml("g")
    console.unlink()


def test_attaches_at_once(gateway: Gateway, image: Image, root: Path) -> None:
    """Several clients at the same moment get several vPHBs; with none left, one is refused with the reason."""
    gateway.host.define(old_guest(image, root))
    gateway.host.virsh("start", "--paused", "g")
    nics = {n: hooked.NIC.format(mac=hooked.mac(n), model="virtio", address="") for n in range(10, 15)}
    for number, xml in nics.items():
        gateway.host.write(f"/run/nic-{number}.xml", xml)
    virsh = ["virsh", "-q", "-c", gateway.host.uri, "attach-device", "g", "--live", "--config"]
    processes = [
        subprocess.Popen(gateway.host.argv([*virsh, f"/run/nic-{n}.xml"]), stderr=subprocess.PIPE, text=True)
        for n in nics
    ]
    said = [process.communicate(timeout=DEADLINE)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 0, 0, 0, 1]
    assert "papr-hook: guest 'g': no empty vPHB is left" in "".join(said)
    for found in (gateway.host.dumpxml("g"), gateway.host.dumpxml("g", "--inactive")):
        assert complies(found)
    gateway.host.virsh("destroy", "g")
    gateway.host.virsh("start", "--paused", "g")  # which brings new spares
    gateway.host.attach("g", hooked.NIC.format(mac=hooked.mac(20), model="virtio", address=""), "--live")


def test_sharing_by_policy(gateway: Gateway, image: Image, root: Path) -> None:
    """attach_without_spare = share counts from the next call on: emulated devices join emulated ones."""
    keeps = "<metadata><a:layout xmlns:a='urn:papr-hook:domain:1' spares='0'/></metadata>"
    gateway.host.define(old_guest(image, root, extra=keeps))
    gateway.host.virsh("start", "--paused", "g")
    plain = hooked.NIC.format(mac=hooked.mac(9), model="virtio", address="")
    gateway.host.write("/run/plain.xml", plain)
    attach = ["attach-device", "g", "/run/plain.xml", "--live"]
    assert gateway.host.virsh(*attach, check=False).returncode == 1
    gateway.host.write("/etc/papr-hook.conf", "[papr-hook]\nattach_without_spare = share\n")
    try:
        gateway.host.virsh(*attach)
    finally:
        gateway.host.run(["rm", "/etc/papr-hook.conf"])
    assert bus_of(gateway.host.dumpxml("g"), hooked.mac(9)) != 0


def test_attach_to_a_guest_that_was_never_laid_out(gateway: Gateway, image: Image, root: Path) -> None:
    """One that has been running since before the gateway still takes devices, as it always did."""
    directly(gateway, "create", "--paused", "/dev/stdin", input=old_guest(image, root))
    gateway.host.attach("g", hooked.NIC.format(mac=hooked.mac(9), model="virtio", address=""), "--live")
    assert bus_of(gateway.host.dumpxml("g"), hooked.mac(9)) == 0


def test_attach_command_without_a_gateway(gateway: Gateway, image: Image, root: Path) -> None:
    """papr-hook attach does it on libvirt's own socket."""
    gateway.host.define(old_guest(image, root))
    gateway.host.virsh("start", "--paused", "g")
    run = ["env", f"PYTHONPATH={PROJECT}", PYTHON, "-m", "papr_hook", "attach"]
    command = [*run, "g", "--live", "--config", "-c", gateway.host.daemon_uri]
    for number in range(10, 14):
        nic = hooked.NIC.format(mac=hooked.mac(number), model="virtio", address="")
        assert re.fullmatch(r"g: attached on vPHB \d+ slot 1\n", gateway.host.run(command, input=nic).stdout)
    assert complies(gateway.host.dumpxml("g"))
    done = gateway.host.run(command, input=nic.replace(":0d", ":0e"), check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("papr-hook: no empty vPHB is left")


# Streams, descriptors, events


def test_volumes(gateway: Gateway) -> None:
    """Streams in both directions, with holes too, carry every byte."""
    host = gateway.host
    host.run(["mkdir", "-p", "/var/lib/libvirt/pool"])
    data = os.urandom(5 << 20) + bytes(8 << 20) + os.urandom(3 << 20)
    host.outside("/var/lib/libvirt/pool/in.raw").write_bytes(data)
    host.virsh("pool-create-as", "p", "dir", "--target", "/var/lib/libvirt/pool")
    try:
        for sparse in ([], ["--sparse"]):
            host.virsh("vol-create-as", "p", "v", str(len(data)))
            host.virsh("vol-upload", "v", "/var/lib/libvirt/pool/in.raw", "--pool", "p", *sparse)
            host.virsh("vol-download", "v", "/var/lib/libvirt/pool/out.raw", "--pool", "p", *sparse)
            out = host.outside("/var/lib/libvirt/pool/out.raw").read_bytes()
            assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
            host.virsh("vol-delete", "v", "--pool", "p")
    finally:
        host.virsh("pool-destroy", "p")


def test_console(gateway: Gateway, image: Image, root: Path) -> None:
    """A console's stream shows the firmware."""
    xml = re.sub(r"(?s)<serial.*</serial>", "<serial type='pty'/>", old_guest(image, root))
    gateway.host.virsh("create", "--paused", "/dev/stdin", input=xml)
    assert gateway.python(CONSOLE, gateway.host.uri, "g") == "seen\n"


GRAPHICS = """
import libvirt, os, socket, sys
guest = libvirt.open(sys.argv[1]).lookupByName("g")
print(os.read(guest.openGraphicsFD(0), 3).decode())
ours, theirs = socket.socketpair()
guest.openGraphics(0, theirs.fileno())
print(ours.recv(3).decode())
"""


def test_descriptors_both_ways(gateway: Gateway, image: Image, root: Path) -> None:
    """libvirt's descriptor reaches the client, and the client's reaches QEMU."""
    xml = old_guest(image, root, hooked.crowded() + GRAPHICS_CARD)
    gateway.host.virsh("create", "--paused", "/dev/stdin", input=xml)
    for uri in (gateway.host.uri, gateway.host.daemon_uri):
        assert gateway.python(GRAPHICS, uri) == "RFB\nRFB\n"


def test_events_with_keepalive(gateway: Gateway, image: Image, root: Path) -> None:
    """Events come to a client that also checks whether libvirt is still there."""
    assert gateway.python(EVENTS, gateway.host.uri, old_guest(image, root)) == "True 1\n"


def test_keepalive_while_an_attach_waits(gateway: Gateway, image: Image, root: Path) -> None:
    """A packet that is held holds nothing else up."""
    gateway.host.define(old_guest(image, root))
    uuid = bytes.fromhex("6a2b0e5c9a8f4f0a8b4f0123456789ab")
    holder = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\nfrom pathlib import Path\n"
        "from papr_hook.virt.locks import open_attach_locks\nlocks = open_attach_locks(Path('/run/libvirt'))\n"
        f"print(locks.acquire({uuid!r}) is not None, flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen(
        gateway.host.argv([PYTHON, "-c", holder]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other, gateway.connect() as client:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        talk = Talk(client)
        talk.open()
        nic = hooked.NIC.format(mac=hooked.mac(9), model="virtio", address="").encode()
        payload = protocol.string(b"g") + uuid + protocol.uint(0xFFFFFFFF) + protocol.string(nic) + protocol.uint(2)
        attach = protocol.build_packet(160, protocol.Type.CALL, 77, 0, payload)
        client.sendall(attach.data + talk.ping())
        pong = talk.next()
        assert (pong.program, pong.procedure) == (KEEPALIVE, PONG)
        assert other.stdin is not None
        other.stdin.close()
        reply = talk.next()
        assert (reply.serial, reply.status) == (77, 0)
    assert complies(gateway.host.dumpxml("g"))


class Talk:
    """A client that speaks the protocol itself."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self._framer = protocol.PacketParser()

    def open(self) -> None:
        """Do what every client does first."""
        self.client.sendall(protocol.build_packet(66, protocol.Type.CALL, 0, 0, b"").data)
        assert self.next().status == 0
        name = protocol.uint(1) + protocol.string(b"qemu:///system") + protocol.uint(0)
        self.client.sendall(protocol.build_packet(1, protocol.Type.CALL, 1, 0, name).data)
        assert self.next().status == 0

    def next(self) -> protocol.Packet:
        """The next packet that comes. Raises EOFError."""
        while (packet := self._framer.next_packet()) is None:
            data = self.client.recv(65536)
            if not data:
                raise EOFError
            self._framer.receive(data)
        return packet

    def ping(self) -> bytes:
        """A keepalive request."""
        return struct.pack(">7I", 28, KEEPALIVE, 1, PING, protocol.Type.MESSAGE, 0, 0)


# Many, and bad ones


def test_a_thousand_connections(gateway: Gateway) -> None:
    """One after another, they leave nothing."""
    before = gateway.descriptors()
    for _ in range(1000):
        with gateway.connect() as client:
            Talk(client).open()
    until(lambda: gateway.children() == [])
    assert gateway.descriptors() == before


def test_two_hundred_connections(gateway: Gateway) -> None:
    """At once, each is served, and they leave nothing."""
    before = gateway.descriptors()
    with ExitStack() as stack:
        talks = [Talk(stack.enter_context(gateway.connect())) for _ in range(200)]
        for talk in talks:
            talk.open()
        for talk in talks:
            talk.client.sendall(talk.ping())
        assert {talk.next().procedure for talk in talks} == {PONG}
        assert len(gateway.children()) == 200
    until(lambda: gateway.children() == [])
    assert gateway.descriptors() == before


NOISE = {
    "length 0": bytes(28),
    "length 27": struct.pack(">7I", 27, 0, 0, 0, 0, 0, 0),
    "too long": struct.pack(">I", 0x7FFFFFFF),
    "too long before it is let in": struct.pack(">I", 131_073),
    "text": b"GET / HTTP/1.0\r\n\r\n",
    "too many descriptors": struct.pack(">8I", 32, protocol.PROGRAM, 1, 1, 4, 0, 0, 33),
    "a packet and then noise": struct.pack(">7I", 28, KEEPALIVE, 1, PING, 2, 0, 0) + b"\xff" * 9,
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_ends_its_own_connection(gateway: Gateway, name: str) -> None:
    """A peer that sends no packet is cut off; another one does not notice."""
    with gateway.connect() as good, gateway.connect() as bad:
        talk = Talk(good)
        talk.open()
        bad.sendall(NOISE[name])
        with suppress(ConnectionResetError):
            while bad.recv(65536):
                pass
        good.sendall(talk.ping())
        assert talk.next().procedure == PONG


def test_descriptors_that_nobody_announced(gateway: Gateway) -> None:
    """They end the connection, too, and stay nowhere."""
    with gateway.connect() as bad, open(os.devnull, "rb") as null:
        socket.send_fds(bad, [bytes(4)], [null.fileno()])
        with suppress(ConnectionResetError):
            assert bad.recv(100) == b""


def test_half_a_frame(gateway: Gateway) -> None:
    """It waits for its other half, and ends with its peer."""
    with gateway.connect() as client:
        talk = Talk(client)
        talk.open()
        ping = talk.ping()
        client.sendall(ping[:9])
        assert gateway.host.virsh("hostname").returncode == 0
        client.sendall(ping[9:] + ping[:5])
        assert talk.next().procedure == PONG


def test_a_peer_that_does_not_read(gateway: Gateway) -> None:
    """It fills its own buffers and no others: its process stays small, and the others are served."""
    with gateway.connect() as deaf:
        talk = Talk(deaf)
        talk.open()
        deaf.setblocking(False)
        sent = 0
        call = (
            protocol.build_packet(CONNECT_GET_CAPABILITIES, protocol.Type.CALL, 5, 0, b"").data * 50
        )  # its answer is long
        (child,) = gateway.children()
        with suppress(BlockingIOError):
            while sent < 1 << 24:
                sent += deaf.send(call)
        assert gateway.host.virsh("hostname").stdout == "gated\n"
        status = gateway.host.read(f"/proc/{child}/status")
        assert int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) < 200_000


def test_killed_children_and_parents(own: Gateway, image: Image, root: Path) -> None:
    """They take no guest and no definition with them; those who are served stay served."""
    host = own.host
    host.define(old_guest(image, root))
    host.virsh("start", "--paused", "g")
    with own.connect() as first, own.connect() as second:
        one, two = Talk(first), Talk(second)
        one.open()
        two.open()
        host.run(["kill", "-9", str(own.children()[0])])
        until(lambda: len(own.children()) == 1)
        own.stop()
        alive = 0
        for talk in (one, two):
            try:
                talk.client.sendall(talk.ping())
                alive += talk.next().procedure == PONG
            except (EOFError, OSError):
                continue
        assert alive == 1
        assert host.virsh("hostname", check=False).returncode != 0
        own.start()
    assert host.virsh("domstate", "g").stdout.strip() == "paused"
    assert complies(host.dumpxml("g", "--inactive"))


def test_libvirt_goes_and_comes_back(own: Gateway) -> None:
    """A client is cut off with libvirt, and the next connection works when it is back."""
    with own.connect() as client:
        talk = Talk(client)
        talk.open()
        own.host.stop_daemon()
        with pytest.raises(EOFError):
            talk.next()
    assert own.host.virsh("hostname", check=False).returncode != 0
    own.host.start_daemon()
    assert own.host.virsh("hostname").stdout == "own\n"


ACTIVATE = """
import os, socket, sys
one = socket.socket(socket.AF_UNIX)
one.bind(sys.argv[1])
one.listen()
os.dup2(one.fileno(), 9)
os.dup2(9, 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), PYTHONPATH=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "papr_hook", "gateway", "serve"])
"""


def test_socket_activation(make_host: Callable[[str], Host]) -> None:
    """It serves the sockets that systemd hands over, and libvirt where the settings say."""
    one = Gateway(make_host("activated"))
    process = subprocess.Popen(one.host.argv([PYTHON, "-c", ACTIVATE, CLIENTS, str(PROJECT)]))
    until(lambda: one.host.virsh("uri", check=False).returncode == 0)
    assert one.host.virsh("hostname").stdout == "activated\n"
    one.host.stop()
    process.wait()


# Who is who


def peer(gateway: Gateway, uid: int, groups: str, path: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run virsh as somebody."""
    identity = ["--reuid", str(uid), "--regid", str(uid), *(["--groups", groups] if groups else ["--clear-groups"])]
    virsh = ["env", "HOME=/nowhere", "virsh", "-q", "-c", f"qemu:///system?socket={path}", *args]
    return gateway.host.run(["setpriv", *identity, *virsh], check=False)


def test_everybody_is_who_they_are(gateway: Gateway) -> None:
    """libvirt sees the uid and the gid of the peer, not the gateway's."""
    program = (
        "import libvirt, subprocess, sys, time\nc = libvirt.open('qemu:///system?socket=' + sys.argv[1])\n"
        "print(c.getHostname(), flush=True)\nsys.stdin.read()"
    )
    for uid in (0, UID):
        identity = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--groups", f"{GROUP},7"]
        command = gateway.host.argv([*identity, PYTHON, "-c", program, CLIENTS])
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "gated\n"
            (child,) = gateway.children()
            status = gateway.host.read(f"/proc/{child}/status")
            assert re.findall(r"(?m)^(?:Uid|Gid):\s+(.*)$", status) == [f"{uid}\t{uid}\t{uid}\t{uid}"] * 2
            assert re.findall(r"(?m)^Groups:\s+(.*?) *$", status) == [f"7 {GROUP}"]
            number = gateway.host.run(["virt-admin", "-c", ADMIN, "client-list", "libvirtd"]).stdout.split("\n")[-3]
            info = gateway.host.run(["virt-admin", "-c", ADMIN, "client-info", "libvirtd", number.split()[0]]).stdout
            assert re.findall(r"unix_(?:user|group)_id *: *(\d+)", info) == [str(uid)] * 2


def test_rights_are_libvirts(own: Gateway) -> None:
    """A socket for one group: its members are served, others get the very error that they get directly."""
    host = own.host
    host.run(["chgrp", str(GROUP), UPSTREAM])
    host.run(["chmod", "0660", UPSTREAM])
    own.stop()
    own.start()
    assert host.run(["stat", "-c", "%a %u %g", CLIENTS]).stdout == f"660 0 {GROUP}\n"
    for uid, groups, allowed in ((0, "", True), (UID, str(GROUP), True), (UID, "", False), (UID, "7", False)):
        through = peer(own, uid, groups, CLIENTS, "hostname")
        direct = peer(own, uid, groups, UPSTREAM, "hostname")
        assert (through.returncode == 0) == allowed
        assert (through.stdout, through.stderr.replace(CLIENTS, UPSTREAM)) == (direct.stdout, direct.stderr)
    # A gateway whose own socket is open to all opens nothing: its child has the peer's rights.
    host.run(["chmod", "0666", CLIENTS])
    assert peer(own, UID, "", CLIENTS, "hostname").returncode != 0
    assert peer(own, UID, str(GROUP), CLIENTS, "hostname").returncode == 0


def test_unprivileged_attach(gateway: Gateway, image: Image, root: Path) -> None:
    """Reservations hold for peers of every uid: they are made before the identity is taken on."""
    gateway.host.define(old_guest(image, root))
    gateway.host.write("/run/nic.xml", hooked.NIC.format(mac=hooked.mac(9), model="virtio", address=""))
    done = peer(gateway, UID, "", CLIENTS, "attach-device", "g", "/run/nic.xml", "--config")
    assert done.returncode == 0, done.stderr
    assert complies(gateway.host.dumpxml("g"))
    directly(gateway, "define", "/dev/stdin", input=old_guest(image, root))
    assert peer(gateway, UID, "", CLIENTS, "start", "--paused", "g").returncode == 0
    assert complies(gateway.host.dumpxml("g"))


def test_networks_that_a_peer_may_not_read(gateway: Gateway, image: Image, root: Path) -> None:
    """libvirt tells it which of them hand out host devices: what they hand out never shares a vPHB."""
    networks = {"virtual": "", "handing": "<forward mode='hostdev' managed='yes'><pf dev='sriov0'/></forward>"}
    for name, forward in networks.items():
        text = f"<network><name>{name}</name>{forward}</network>"
        defined = directly(gateway, "net-define", "/dev/stdin", input=text)
        assert defined.returncode == 0, defined.stderr
    assert gateway.host.run(["stat", "-c", "%a", "/etc/libvirt/qemu/networks/handing.xml"]).stdout == "600\n"
    gateway.host.write("/etc/papr-hook.conf", "[papr-hook]\nattach_without_spare = share\nspares = 0\n")
    try:
        gateway.host.define(old_guest(image, root))
        gateway.host.virsh("start", "--paused", "g")
        for name in networks:
            nic = f"<interface type='network'><source network='{name}'/><model type='virtio'/></interface>"
            gateway.host.write(f"/run/{name}.xml", nic)
        for uid in (0, UID):
            done = peer(gateway, uid, "", CLIENTS, "attach-device", "g", "/run/handing.xml", "--live")
            assert "papr-hook: guest 'g': no empty vPHB is left" in done.stderr
            done = peer(gateway, uid, "", CLIENTS, "attach-device", "g", "/run/virtual.xml", "--live")
            assert "network 'virtual' is not active" in done.stderr
    finally:
        gateway.host.run(["rm", "/etc/papr-hook.conf"])
        for name in networks:
            directly(gateway, "net-undefine", name)


# Other clients


def test_perl(gateway: Gateway, image: Image, root: Path) -> None:
    """Sys::Virt defines and starts a guest."""
    if subprocess.run(["perl", "-MSys::Virt", "-e", "1"], capture_output=True).returncode != 0:
        pytest.skip("Sys::Virt (libsys-virt-perl) is not installed")
    library = ["env", f"PERL5LIB={os.environ.get('PERL5LIB', '')}"]
    said = gateway.host.run([*library, "perl", "-e", PERL, gateway.host.uri, old_guest(image, root)]).stdout
    assert said == "g 1\n"
    assert complies(gateway.host.dumpxml("g"))


@pytest.mark.skipif(shutil.which("virt-install") is None, reason="virt-install (virtinst) is not installed")
def test_virt_install(gateway: Gateway, image: Image, disk: Path) -> None:
    """virt-install creates a guest with the layout, and virt-xml changes its definition."""
    options = (
        f"--connect {gateway.host.uri} --name g --memory 512 --arch ppc64 --machine pseries --virt-type qemu "
        f"--osinfo detect=off,require=off --network user --graphics none --noautoconsole --import --disk {disk}"
    )
    gateway.host.run(["virt-install", *options.split()], timeout=120)
    assert complies(gateway.host.dumpxml("g"))
    change = ["virt-xml", "--connect", gateway.host.uri, "g", "--add-device", "--rng", "/dev/urandom", "--define"]
    gateway.host.run(change)
    assert complies(gateway.host.dumpxml("g", "--inactive"))
