"""Streams, file descriptors and events through the gateway."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from tests.harness.gateway_host import GatewayHost
from tests.harness.guest_image import Image
from tests.helpers.clients import CONSOLE, EVENTS
from tests.helpers.guests import GRAPHICS_CARD, crowded, old_guest


def test_volumes(gateway: GatewayHost) -> None:
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


def test_console(gateway: GatewayHost, image: Image, root: Path) -> None:
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


def test_descriptors_both_ways(gateway: GatewayHost, image: Image, root: Path) -> None:
    """libvirt's descriptor reaches the client, and the client's reaches QEMU."""
    xml = old_guest(image, root, crowded() + GRAPHICS_CARD)
    gateway.host.virsh("create", "--paused", "/dev/stdin", input=xml)
    for uri in (gateway.host.uri, gateway.host.daemon_uri):
        assert gateway.python(GRAPHICS, uri) == "RFB\nRFB\n"


def test_events_with_keepalive(gateway: GatewayHost, image: Image, root: Path) -> None:
    """Events come to a client that also checks whether libvirt is still there."""
    assert gateway.python(EVENTS, gateway.host.uri, old_guest(image, root)) == "True 1\n"
