"""Clients other than virsh, through the gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.gateway_host import GatewayHost
from tests.harness.guest_image import Image
from tests.helpers.clients import PERL
from tests.helpers.guests import complies, old_guest


def test_perl(gateway: GatewayHost, image: Image, root: Path) -> None:
    """Sys::Virt defines and starts a guest."""
    if subprocess.run(["perl", "-MSys::Virt", "-e", "1"], capture_output=True).returncode != 0:
        pytest.skip("Sys::Virt (libsys-virt-perl) is not installed")
    library = ["env", f"PERL5LIB={os.environ.get('PERL5LIB', '')}"]
    said = gateway.host.run([*library, "perl", "-e", PERL, gateway.host.uri, old_guest(image, root)]).stdout
    assert said == "g 1\n"
    assert complies(gateway.host.dumpxml("g"))


@pytest.mark.skipif(shutil.which("virt-install") is None, reason="virt-install (virtinst) is not installed")
def test_virt_install(gateway: GatewayHost, image: Image, disk: Path) -> None:
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
