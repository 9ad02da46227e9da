"""Build the packages of the project, and see what an installed one does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.harness.booted_host import BootedHost
from tests.helpers.installation import CROWDED, ENFORCING, pci_roots
from tests.helpers.paths import PROJECT


def build(builder: str, into: Path, version: str = "") -> Path:
    """Build a package of the project.

    Args:
        builder: The script in packaging/.
        into: A directory for the sources and the package.
        version: What precedes the version of the project, if the package is to be of a newer one.
    """
    source = into / "source"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    if version:
        init = source / "papr_hook/__init__.py"
        init.write_text(init.read_text().replace('__version__ = "', f'__version__ = "{version}.'))
    subprocess.run([source / "packaging" / builder, into / "built"], check=True, capture_output=True)
    (built,) = (into / "built").iterdir()
    return built


def is_gated(host: BootedHost) -> bool:
    """Return whether a guest is laid out on its way to libvirt."""
    host.virsh("define", "/dev/stdin", input=CROWDED)
    try:
        return pci_roots(host) > 1
    finally:
        host.virsh("undefine", "crowd")


def assert_not_gated_if_enforcing(host: BootedHost, command: str) -> None:
    """Install a package where SELinux is enforcing: it says that the gateway is not enabled, and leaves it so.

    Args:
        host: A host without the package.
        command: The shell command that installs it.
    """
    host.write("/srv/enforcing", f"{ENFORCING}\n{command} 2>&1\n")
    done = host.run("unshare", "-m", "sh", "-e", "/srv/enforcing")
    assert "papr-hook is untested: the gateway is not enabled" in done.stdout
    assert not is_gated(host)
