"""Access control: libvirt sees the client's identity through the gateway."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.harness.gateway_host import ADMIN, CLIENTS, GROUP, PYTHON, UID, UPSTREAM, GatewayHost
from tests.harness.guest_image import Image
from tests.helpers.domain_xml import nic
from tests.helpers.guests import complies, old_guest


def peer(gateway: GatewayHost, uid: int, groups: str, path: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run virsh as somebody."""
    identity = ["--reuid", str(uid), "--regid", str(uid), *(["--groups", groups] if groups else ["--clear-groups"])]
    virsh = ["env", "HOME=/nowhere", "virsh", "-q", "-c", f"qemu:///system?socket={path}", *args]
    return gateway.host.run(["setpriv", *identity, *virsh], check=False)


def test_everybody_is_who_they_are(gateway: GatewayHost) -> None:
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
            statuses = [gateway.host.read(f"/proc/{relay}/status") for relay in gateway.relays()]
            identities = [re.findall(r"(?m)^(?:Uid|Gid|Groups):\s+(.*?) *$", status) for status in statuses]
            assert identities.count([f"{uid}\t{uid}\t{uid}\t{uid}"] * 2 + [f"7 {GROUP}"]) == 1
            number = gateway.host.run(["virt-admin", "-c", ADMIN, "client-list", "libvirtd"]).stdout.split("\n")[-3]
            info = gateway.host.run(["virt-admin", "-c", ADMIN, "client-info", "libvirtd", number.split()[0]]).stdout
            assert re.findall(r"unix_(?:user|group)_id *: *(\d+)", info) == [str(uid)] * 2


def test_rights_are_libvirts(own: GatewayHost) -> None:
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


def test_unprivileged_attach(gateway: GatewayHost, image: Image, root: Path) -> None:
    """Reservations hold for peers of every uid: they are made before the identity is taken on."""
    gateway.host.define(old_guest(image, root))
    gateway.host.write("/run/nic.xml", nic(9))
    done = peer(gateway, UID, "", CLIENTS, "attach-device", "g", "/run/nic.xml", "--config")
    assert done.returncode == 0, done.stderr
    assert complies(gateway.host.dumpxml("g"))
    gateway.via_daemon("define", "/dev/stdin", input=old_guest(image, root))
    assert peer(gateway, UID, "", CLIENTS, "start", "--paused", "g").returncode == 0
    assert complies(gateway.host.dumpxml("g"))


def test_networks_that_a_peer_may_not_read(gateway: GatewayHost, image: Image, root: Path) -> None:
    """libvirt tells it which of them hand out host devices: what they hand out never shares a vPHB."""
    networks = {"virtual": "", "handing": "<forward mode='hostdev' managed='yes'><pf dev='sriov0'/></forward>"}
    for name, forward in networks.items():
        text = f"<network><name>{name}</name>{forward}</network>"
        defined = gateway.via_daemon("net-define", "/dev/stdin", input=text)
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
            gateway.via_daemon("net-undefine", name)
