"""Domain XML that clients define, create and preview, through the gateway to a real libvirtd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.gateway_host import GatewayHost
from tests.harness.guest_image import Image
from tests.helpers.domain_xml import at
from tests.helpers.guests import canonical, complies, crowded, laid_out, old_guest, pc_shaped
from tests.helpers.polling import wait_until


def test_define_is_laid_out(gateway: GatewayHost, image: Image, root: Path, disk: Path) -> None:
    """What libvirt stores is what it makes of the layout; everything that virsh says is as it was."""
    xml = old_guest(image, root, pc_shaped(disk))
    assert gateway.same_result("define", "/dev/stdin", input=xml).returncode == 0
    found = gateway.host.dumpxml("g")
    assert complies(found)
    gateway.via_daemon("define", "/dev/stdin", input=laid_out(xml))
    assert canonical(gateway.host.dumpxml("g")) == canonical(found)


def test_define_with_validation_and_without_flags(gateway: GatewayHost, image: Image, root: Path) -> None:
    """Both of libvirt's procedures for a definition are laid out."""
    gateway.same_result("define", "--validate", "/dev/stdin", input=old_guest(image, root))
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
    gateway: GatewayHost, image: Image, root: Path, name: str, change: Callable[[str], str]
) -> None:
    """It goes to libvirt as it is, and libvirt says what it would say."""
    xml = change(old_guest(image, root))
    direct = gateway.via_daemon("define", "/dev/stdin", input=xml)
    stored = gateway.via_daemon("dumpxml", "g").stdout
    gateway.via_daemon("undefine", "g")
    through = gateway.host.virsh("define", "/dev/stdin", input=xml, check=False)
    assert (through.returncode, through.stdout, through.stderr) == (direct.returncode, direct.stdout, direct.stderr)
    assert gateway.host.virsh("dumpxml", "g", check=False).stdout == stored


def test_create_and_autodestroy(gateway: GatewayHost, image: Image, root: Path) -> None:
    """A transient guest runs with the layout, and one that is to end with its client does."""
    xml = old_guest(image, root)
    gateway.host.virsh("create", "--paused", "/dev/stdin", input=xml)
    assert complies(gateway.host.dumpxml("g"))
    gateway.host.virsh("destroy", "g")
    gateway.host.write("/run/g.xml", xml)
    said = gateway.host.virsh("create --paused --autodestroy /run/g.xml; domstate g").stdout
    assert said.split()[-1] == "paused"
    wait_until(lambda: gateway.host.virsh("domstate", "g", check=False).returncode != 0)


def test_create_with_files(gateway: GatewayHost, image: Image, root: Path) -> None:
    """libvirt's QEMU driver takes no files, and says so through the gateway too; the connection lives on."""
    gateway.host.write("/run/g.xml", old_guest(image, root))
    script = "exec 3</etc/hostname; exec virsh -q -c '{}' 'create --pass-fds 3,3 --paused /run/g.xml; hostname'"
    through = gateway.host.run(["sh", "-c", script.format(gateway.host.uri)], check=False)
    direct = gateway.host.run(["sh", "-c", script.format(gateway.host.daemon_uri)], check=False)
    assert (through.returncode, through.stdout, through.stderr) == (direct.returncode, direct.stdout, direct.stderr)
    assert "not supported" in through.stderr
    assert through.stdout == "gated\n"


def test_edit(gateway: GatewayHost, image: Image, root: Path) -> None:
    """virsh edit of a definition: what the editor makes is laid out."""
    gateway.via_daemon("define", "/dev/stdin", input=old_guest(image, root))
    script = f"EDITOR=\"sed -i 's/<vcpu.*vcpu>/<vcpu>2<\\/vcpu>/'\" virsh -q -c '{gateway.host.uri}' edit g"
    gateway.host.run(["sh", "-c", script])
    found = gateway.host.dumpxml("g")
    assert ">2</vcpu>" in found
    assert complies(found)


def test_preview_of_the_command_line(gateway: GatewayHost, image: Image, root: Path) -> None:
    """domxml-to-native shows what a start would run, layout and all."""
    xml = old_guest(image, root)
    native = ["domxml-to-native", "qemu-argv", "/dev/stdin"]
    through = gateway.host.virsh(*native, input=xml).stdout
    assert through.count('"driver":"spapr-pci-host-bridge"') > 4
    # libvirt finds a free port and a random MAC address for nothing here, so the two are alike.
    assert through == gateway.via_daemon(*native, input=laid_out(xml)).stdout


def test_hostdevs_are_defined(gateway: GatewayHost, image: Image, root: Path) -> None:
    """A host device gets its own vPHB."""
    hostdev = (
        "<hostdev mode='subsystem' type='pci' managed='yes'>"
        f"<source><address domain='0x0001' bus='0x01' slot='0x00' function='0x0'/></source>{at(0, 5)}</hostdev>"
    )
    gateway.same_result("define", "/dev/stdin", input=old_guest(image, root, crowded() + hostdev))
    assert complies(gateway.host.dumpxml("g"))
