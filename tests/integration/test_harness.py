"""The harness itself, on real parts: hosts, a guest's view of PCI, hotplug, migration, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import guest, guest_image
from tests.harness.guest_image import Image
from tests.harness.guest_inventory import Inventory, Phb, parse_inventory
from tests.harness.libvirt_host import CommandError, Host, HostError
from tests.helpers.polling import wait_until

E1000E = "52:54:00:00:00:01"
VIRTIO = "52:54:00:00:00:02"
HOTPLUGGED = "52:54:00:00:00:03"


def nic(mac: str, model: str, bus: int) -> str:
    """Return a NIC without a network, in slot 1 of a pci-root."""
    return (
        f"<interface type='user'><mac address='{mac}'/><model type='{model}'/>"
        f"<address type='pci' domain='0' bus='{bus}' slot='1' function='0'/></interface>"
    )


def devices(disk: Path) -> str:
    """Return five PHBs: the first and the last are empty, one device sits on each other one."""
    phbs = "".join(f"<controller type='pci' index='{index}' model='pci-root'/>\n" for index in range(5))
    return f"""{phbs}{nic(E1000E, "e1000e", 1)}
{nic(VIRTIO, "virtio", 2)}
<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2'/>
  <source file='{disk}'/>
  <target dev='vda' bus='virtio'/>
  <address type='pci' domain='0' bus='3' slot='1' function='0'/>
</disk>"""


@pytest.fixture(scope="module")
def console(two_hosts: tuple[Host, Host], image: Image, root: Path) -> Iterator[Path]:
    """Run a guest «g» on the first host; return its console."""
    disk = root / "g.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    path = root / "g.console"
    north, _ = two_hosts
    north.define(guest.domain("g", image, path, devices(disk)))
    north.virsh("start", "g")
    guest.wait_for(path)
    yield path
    for one in two_hosts:  # a migration that failed half-way may have left it on either
        one.virsh("destroy", "g", check=False)
        one.virsh("undefine", "g", check=False)


@pytest.fixture(scope="module")
def inventory(console: Path) -> Inventory:
    """Return what that guest sees."""
    return guest.wait_for(console, lambda seen: seen.by_mac(HOTPLUGGED) is None)


def test_host_has_its_own_name_and_state(host: Host) -> None:
    assert host.virsh("hostname").stdout.strip() == host.name
    assert host.run(["hostname"]).stdout.strip() == host.name
    assert host.uuid in host.virsh("capabilities").stdout
    assert host.virsh("list", "--all", "--name").stdout.split() == []
    assert host.virsh("net-list", "--all", "--name").stdout.split() == []


def test_uri_is_good_outside(host: Host) -> None:
    done = subprocess.run(["virsh", "-q", "-c", host.uri, "hostname"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == host.name


def test_commands_get_input_and_time_limits(host: Host) -> None:
    assert host.run(["tr", "a-z", "A-Z"], input="é\nab").stdout == "é\nAB"
    assert host.run(["false"], check=False).returncode == 1
    with pytest.raises(CommandError, match="no such thing"):
        host.run(["sh", "-c", "echo no such thing >&2; exit 3"])
    before = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sh", "-c", "sleep 60; true"], timeout=0.3)
    assert time.monotonic() - before < 10


def test_etc_is_private(host: Host) -> None:
    name = f"papr-{uuid.uuid4()}"
    host.write(f"/etc/{name}/conf", "one\n", 0o640)
    host.write(f"/etc/{name}/conf", "two\n", 0o750)
    assert host.read(f"/etc/{name}/conf") == "two\n"
    assert host.run(["stat", "-c", "%a", f"/etc/{name}/conf"]).stdout.strip() == "750"
    assert not Path("/etc", name).exists()
    assert host.read("/etc/passwd") == Path("/etc/passwd").read_text(encoding="utf-8")


def test_reload_finds_a_hook(make_host: Callable[[str], Host], image: Image, root: Path) -> None:
    one = make_host("hooked")
    one.define(guest.domain("refused", image, root / "refused.console", ""))
    one.write("/etc/libvirt/hooks/qemu", "#!/bin/sh\necho not here >&2\nexit 1\n", 0o755)
    one.reload()
    with pytest.raises(CommandError, match="not here"):
        one.virsh("start", "refused")


def test_daemon_can_move_its_socket(make_host: Callable[[str], Host]) -> None:
    one = make_host("moved")
    config = one.read("/etc/libvirt/libvirtd.conf")
    one.run(["mkdir", "/run/libvirt/inner"])
    one.write("/etc/libvirt/libvirtd.conf", f'{config}unix_sock_dir = "/run/libvirt/inner"\n')
    one.restart()
    assert "inner" in one.daemon_uri
    assert one.run(["virsh", "-q", "-c", one.daemon_uri, "hostname"]).stdout.strip() == "moved"
    assert one.virsh("hostname", check=False).returncode != 0


def test_guest_sees_its_phbs(inventory: Inventory) -> None:
    assert [phb.domain for phb in inventory.phbs] == [0, 1, 2, 3, 4]
    assert {phb.config_space_type for phb in inventory.phbs} == {1}


def test_guest_sees_its_nics(inventory: Inventory) -> None:
    plain = inventory.by_mac(E1000E)
    assert plain is not None
    assert plain.address == "0001:00:01.0"
    assert (plain.vendor, plain.device, plain.class_code) == (0x8086, 0x10D3, 0x020000)
    assert (plain.driver, plain.config_size, plain.config_space_type) == ("e1000e", 4096, 1)
    virtio = inventory.by_mac(VIRTIO)
    assert virtio is not None
    assert (virtio.address, virtio.vendor, virtio.driver) == ("0002:00:01.0", 0x1AF4, "virtio-pci")
    # QEMU makes a virtio device on a pseries PHB a conventional one.
    assert (virtio.config_size, virtio.config_space_type) == (256, None)


def test_guest_sees_its_disk(inventory: Inventory) -> None:
    disk = inventory.by_disk("vda")
    assert disk is not None
    assert (disk.address, disk.class_code, disk.numa_node) == ("0003:00:01.0", 0x010000, -1)


def test_guest_has_an_iommu_group_per_device(inventory: Inventory) -> None:
    groups = [device.iommu_group for device in inventory.devices]
    assert None not in groups
    assert len(set(groups)) == len(groups) == 3


@pytest.mark.usefixtures("console")
def test_guest_obeys_commands(two_hosts: tuple[Host, Host]) -> None:
    north, _ = two_hosts
    assert guest.command(north, "g", "echo one; echo two >&2") == "one\ntwo\n"
    with pytest.raises(guest_image.GuestError, match="status 3"):
        guest.command(north, "g", "exit 3")


def test_hotplug_reaches_the_guest(two_hosts: tuple[Host, Host], console: Path) -> None:
    north, _ = two_hosts
    xml = nic(HOTPLUGGED, "virtio", 4)
    north.attach("g", xml, "--live")
    seen = guest.wait_for(console, lambda now: now.by_mac(HOTPLUGGED) is not None)
    assert [device.mac for device in seen.in_domain(4)] == [HOTPLUGGED]
    north.detach("g", xml, "--live")
    seen = guest.wait_for(console, lambda now: now.by_mac(HOTPLUGGED) is None)
    assert seen.in_domain(4) == ()
    wait_until(lambda: HOTPLUGGED not in north.dumpxml("g"))


@pytest.mark.usefixtures("console")
def test_guest_migrates_there_and_back(two_hosts: tuple[Host, Host]) -> None:
    north, south = two_hosts
    guest.command(north, "g", "echo kept >/run/mark")
    north.migrate("g", south)
    assert south.virsh("domstate", "g").stdout.strip() == "running"
    assert guest.command(south, "g", "cat /run/mark") == "kept\n"
    assert north.virsh("domstate", "g").stdout.strip() == "shut off"
    south.migrate("g", north)
    assert north.virsh("domstate", "g").stdout.strip() == "running"
    assert guest.command(north, "g", "cat /run/mark") == "kept\n"


def test_shutdown_reaches_the_guest(make_host: Callable[[str], Host], image: Image, root: Path) -> None:
    one = make_host("short")
    path = root / "short.console"
    one.define(guest.domain("short", image, path, "<controller type='pci' index='0' model='pci-root'/>"))
    one.virsh("start", "short")
    guest.wait_for(path)
    one.virsh("shutdown", "short")
    wait_until(lambda: one.virsh("domstate", "short").stdout.strip() == "shut off")


def test_nothing_is_left_behind(root: Path, capability_cache: Path, image: Image) -> None:
    links, mounts = network(), Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    with pytest.raises(ZeroDivisionError), Host(root, "gone", capability_cache) as one:
        start_paused(one, image, root / "gone.console")
        namespace = namespace_of(one.pid)
        assert len(members(namespace)) >= 3
        raise ZeroDivisionError
    assert members(namespace) == []
    assert not one.directory.exists()
    assert network() == links
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts
    with pytest.raises(HostError, match="does not run"):
        one.run(["true"])


def test_killed_test_leaves_no_process(root: Path, capability_cache: Path, image: Image) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        f"from {__name__} import *\n"
        f"with Host(Path({str(root)!r}), 'killed', Path({str(capability_cache)!r})) as one:\n"
        f"    start_paused(one, Image(Path({str(image.kernel)!r}), Path({str(image.initrd)!r})),"
        f" Path({str(root / 'killed.console')!r}))\n"
        "    print(one.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    namespace = namespace_of(int(child.stdout.readline()))
    assert len(members(namespace)) >= 3
    child.send_signal(signal.SIGKILL)
    child.communicate()
    wait_until(lambda: members(namespace) == [])


def test_failed_start_leaves_nothing(root: Path) -> None:
    one = Host(root, "broken", capability_cache=root / "no-such-directory")
    with pytest.raises(FileNotFoundError):
        one.start()
    assert not one.running
    assert not one.directory.exists()


@pytest.mark.parametrize("name", ["", "a/b", "-a", "A", "a b"])
def test_host_names_are_checked(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a host name"):
        Host(root, name)


def test_too_long_a_root_is_told(root: Path) -> None:
    with pytest.raises(ValueError, match="too long"):
        Host(root / ("a" * 90), "a")


def test_inventory_is_the_last_complete_one() -> None:
    block = "papr-inventory begin {0}\r\nphb domain=000{0} config_space_type=00000001\r\npapr-inventory end {0} 1\r\n"
    text = "noise\n" + block.format(1) + block.format(2) + "papr-inventory begin 3\nphb domain=0003 conf"
    seen = parse_inventory(text)
    assert seen is not None
    assert seen.number == 2
    assert seen.phbs == (Phb(2, 1),)
    assert parse_inventory(block.format(1).replace(" 1\r", " 2\r")) is None
    assert parse_inventory("") is None


def start_paused(host: Host, image: Image, path: Path) -> None:
    """Start a guest whose processor does not run: an emulator that costs nothing."""
    host.define(guest.domain("idle", image, path, "<controller type='pci' index='0' model='pci-root'/>"))
    host.virsh("start", "--paused", "idle")


def namespace_of(pid: int) -> str:
    """Return the name of a process's PID namespace."""
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def members(namespace: str) -> list[str]:
    """Return the process ids of a PID namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and namespace_of(int(entry.name)) == namespace:
                found.append(entry.name)
        except OSError:  # it ended meanwhile
            continue
    return found


def network() -> set[str]:
    """Return the names of the machine's network devices."""
    return {path.name for path in Path("/sys/class/net").iterdir()}
