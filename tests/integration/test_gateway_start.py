"""Starts and migrations through the gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.harness import guest
from tests.harness.gateway_host import GatewayHost
from tests.harness.guest_image import Image
from tests.harness.libvirt_host import Host
from tests.helpers import hook_installation
from tests.helpers.guests import GRAPHICS_CARD, complies, crowded, old_guest
from tests.helpers.polling import wait_until


def test_start_of_an_old_guest(gateway: GatewayHost, image: Image, root: Path) -> None:
    """It is laid out, passwords and all, and then it starts; nobody is refused, with the hook behind or without."""
    graphics = GRAPHICS_CARD.replace("vnc'", "vnc' passwd='secret'")
    xml = old_guest(image, root, crowded() + graphics)
    hook_installation.install(gateway.host)
    try:
        gateway.via_daemon("define", "/dev/stdin", input=xml)
        assert gateway.via_daemon("start", "--paused", "g").returncode != 0
        wait_until(lambda: complies(gateway.host.dumpxml("g")))
        gateway.via_daemon("define", "/dev/stdin", input=xml)
        assert not complies(gateway.host.dumpxml("g"))
        gateway.host.virsh("start", "--paused", "g")
    finally:
        hook_installation.uninstall(gateway.host)
    assert complies(gateway.host.dumpxml("g"))
    inactive = gateway.host.dumpxml("g", "--inactive", "--security-info")
    assert complies(inactive)
    assert "passwd='secret'" in inactive
    assert gateway.same_result("start", "g").stderr.count("already active") == 1


def test_start_from_a_managed_save(gateway: GatewayHost, image: Image, root: Path) -> None:
    """A saved state keeps the layout that it has; the definition waits for a start without one."""
    gateway.via_daemon("define", "/dev/stdin", input=old_guest(image, root))
    gateway.via_daemon("start", "--paused", "g")
    gateway.via_daemon("managedsave", "g")
    gateway.host.virsh("start", "--paused", "g")
    assert not complies(gateway.host.dumpxml("g", "--inactive"))
    gateway.via_daemon("managedsave", "g")
    gateway.host.virsh("start", "--paused", "--force-boot", "g")
    assert complies(gateway.host.dumpxml("g", "--inactive"))


def test_autostart(gateway: GatewayHost, image: Image, root: Path) -> None:
    """A guest is laid out when its autostart is set: libvirt starts it at boot without a client."""
    gateway.via_daemon("define", "/dev/stdin", input=old_guest(image, root))
    gateway.host.virsh("autostart", "--disable", "g")
    assert not complies(gateway.host.dumpxml("g", "--inactive"))
    gateway.host.virsh("autostart", "g")
    assert complies(gateway.host.dumpxml("g", "--inactive"))
    gateway.host.virsh("autostart", "--disable", "g")


def test_migration(make_host: Callable[[str], Host], image: Image, root: Path) -> None:
    """A guest migrates from gateway to gateway, with the layout that it runs with."""
    one, two = GatewayHost(make_host("one")), GatewayHost(make_host("two"))
    for host in (one, two):
        host.start()
    one.via_daemon("define", "/dev/stdin", input=old_guest(image, root))
    one.via_daemon("start", "g")
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
