"""Attaches and detaches through the gateway."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from papr_hook.gateway import protocol
from tests.harness import guest
from tests.harness.gateway_host import DEADLINE, PYTHON, GatewayHost
from tests.harness.guest_image import Image
from tests.helpers.domain_xml import file_disk, mac, nic
from tests.helpers.guests import addresses_of, bus_of, complies, crowded, old_guest
from tests.helpers.paths import PROJECT
from tests.helpers.polling import wait_until
from tests.helpers.raw_client import KEEPALIVE, PONG, RawClient


def test_attach_and_detach_while_it_runs(gateway: GatewayHost, image: Image, root: Path, disk: Path) -> None:
    """A NIC and a disk get a vPHB each, in the definition and in the guest, where its Linux sees them; both leave."""
    host, console = gateway.host, root / "g.console"
    host.define(old_guest(image, root))
    host.virsh("start", "g")
    guest.wait_for(console)
    host.attach("g", nic(9), "--live", "--config")
    host.virsh("attach-disk", "g", str(disk), "vdb", "--targetbus", "virtio", "--subdriver", "qcow2", "--live")
    seen = guest.wait_for(console, lambda now: bool(now.by_mac(mac(9)) and now.by_disk("vda")))
    assert len({device.domain for device in seen.devices}) == len(seen.devices) == 4
    live, config = host.dumpxml("g"), host.dumpxml("g", "--inactive")
    assert complies(live)
    assert complies(config)
    assert bus_of(live, mac(9)) == bus_of(config, mac(9))
    host.virsh("detach-interface", "g", "user", "--mac", mac(9), "--live", "--config")
    host.virsh("detach-disk", "g", "vdb", "--live")
    guest.wait_for(console, lambda now: not (now.by_mac(mac(9)) or now.by_disk("vda")))
    wait_until(lambda: mac(9) not in host.dumpxml("g"))
    host.attach("g", nic(9), "--config")
    assert complies(host.dumpxml("g", "--inactive"))
    assert mac(9) not in host.dumpxml("g")
    console.unlink()


def test_attaches_at_once(gateway: GatewayHost, image: Image, root: Path) -> None:
    """Several clients at the same moment get several vPHBs; with none left, one is refused with the reason."""
    gateway.host.define(old_guest(image, root))
    gateway.host.virsh("start", "--paused", "g")
    nics = {n: nic(n) for n in range(10, 15)}
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
    gateway.host.attach("g", nic(20), "--live")


def test_sharing_by_policy(gateway: GatewayHost, image: Image, root: Path) -> None:
    """attach_without_spare = share counts from the next call on: emulated devices join emulated ones."""
    keeps = "<metadata><a:layout xmlns:a='urn:papr-hook:domain:1' spares='0'/></metadata>"
    gateway.host.define(old_guest(image, root, extra=keeps))
    gateway.host.virsh("start", "--paused", "g")
    gateway.host.write("/run/plain.xml", nic(9))
    attach = ["attach-device", "g", "/run/plain.xml", "--live"]
    assert gateway.host.virsh(*attach, check=False).returncode == 1
    gateway.host.write("/etc/papr-hook.conf", "[papr-hook]\nattach_without_spare = share\n")
    try:
        gateway.host.virsh(*attach)
        for number in (10, 11):
            gateway.host.attach("g", nic(number), "--live")
    finally:
        gateway.host.run(["rm", "/etc/papr-hook.conf"])
    buses = [bus_of(gateway.host.dumpxml("g"), mac(number)) for number in (1, 2, 9, 10, 11)]
    assert sorted(buses.count(bus) for bus in set(buses)) == [2, 3]


def test_an_update_keeps_the_address(gateway: GatewayHost, image: Image, root: Path, disk: Path) -> None:
    """A device that is updated for the next start stays where it is, on or off."""
    gateway.host.define(old_guest(image, root, crowded() + file_disk(disk, "vda")))
    before = addresses_of(gateway.host.dumpxml("g", "--inactive"))
    changed = {
        nic(2).replace("<model", "<link state='down'/><model"): "link state='down'",
        file_disk(disk, "vda").replace("type='qcow2'", "type='qcow2' cache='none'"): "cache='none'",
    }
    for xml, sign in changed.items():
        gateway.host.virsh("update-device", "g", "/dev/stdin", "--config", input=xml)
        assert sign in gateway.host.dumpxml("g", "--inactive")
        assert addresses_of(gateway.host.dumpxml("g", "--inactive")) == before
    gateway.host.virsh("start", "--paused", "g")
    gateway.host.virsh("update-device", "g", "/dev/stdin", "--live", "--config", input=nic(2))
    assert addresses_of(gateway.host.dumpxml("g")) == before
    assert addresses_of(gateway.host.dumpxml("g", "--inactive")) == before


def test_attach_to_a_guest_that_was_never_laid_out(gateway: GatewayHost, image: Image, root: Path) -> None:
    """One that has been running since before the gateway still takes devices, as it always did."""
    gateway.via_daemon("create", "--paused", "/dev/stdin", input=old_guest(image, root))
    gateway.host.attach("g", nic(9), "--live")
    assert bus_of(gateway.host.dumpxml("g"), mac(9)) == 0


def test_attach_command_without_a_gateway(gateway: GatewayHost, image: Image, root: Path) -> None:
    """papr-hook attach does it on libvirt's own socket."""
    gateway.host.define(old_guest(image, root))
    gateway.host.virsh("start", "--paused", "g")
    run = ["env", f"PYTHONPATH={PROJECT}", PYTHON, "-m", "papr_hook", "attach"]
    command = [*run, "g", "--live", "--config", "-c", gateway.host.daemon_uri]
    for number in range(10, 14):
        xml = nic(number)
        assert re.fullmatch(r"g: attached on vPHB \d+ slot 1\n", gateway.host.run(command, input=xml).stdout)
    assert complies(gateway.host.dumpxml("g"))
    done = gateway.host.run(command, input=xml.replace(":0d", ":0e"), check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("papr-hook: no empty vPHB is left")


def test_keepalive_while_an_attach_waits(gateway: GatewayHost, image: Image, root: Path) -> None:
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
        talk = RawClient(client)
        talk.open()
        xml = nic(9).encode()
        payload = protocol.string(b"g") + uuid + protocol.uint(0xFFFFFFFF) + protocol.string(xml) + protocol.uint(2)
        attach = protocol.build_packet(160, protocol.Type.CALL, 77, 0, payload)
        client.sendall(attach.data + talk.ping())
        pong = talk.next()
        assert (pong.program, pong.procedure) == (KEEPALIVE, PONG)
        assert other.stdin is not None
        other.stdin.close()
        reply = talk.next()
        assert (reply.serial, reply.status) == (77, 0)
    assert complies(gateway.host.dumpxml("g"))
