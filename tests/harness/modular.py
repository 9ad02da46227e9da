"""Hosts with libvirt's modular daemons: virtqemud in place of libvirtd.

Debian packages the drivers that these daemons load, but not the daemons. They are built from the source package of the
release's libvirt.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.harness.booted_host import BootedHost, HostError

RELEASE = "trixie"
"""The release whose libvirt they belong to."""

MODULAR = "modular"
"""The name of such a host in tests that run on hosts of several kinds."""

DAEMON = "virtqemud"
"""The one that serves QEMU guests."""

DAEMONS = (DAEMON, "virtnetworkd", "virtnodedevd", "virtsecretd", "virtstoraged", "virtproxyd")

Boot = Callable[..., contextlib.AbstractContextManager[BootedHost]]
"""What boots a host of a kind, and gives it another name if one is given."""

SCRIPT = Path(__file__).with_name("build-modular")

SWITCH = """
systemctl disable --now libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket
systemctl daemon-reload
for daemon in {daemons}; do
    systemctl enable $daemon.service $daemon.socket $daemon-ro.socket $daemon-admin.socket
    systemctl start $daemon.socket $daemon-ro.socket $daemon-admin.socket
done
"""
"""What an administrator does to switch to modular daemons (libvirt docs/daemons.rst)."""


def build(directory: Path, root: Path) -> Path:
    """Return a directory with the daemons, their units and their configuration, and build it if there is none.

    This takes 30 s of CPU time, and downloads 120 MB from the root's Debian mirror.

    Args:
        directory: keeps the files. It is created if it does not exist.
        root: the root of RELEASE, as make_root() returns it.

    Raises:
        HostError: a step failed; with its output.
    """
    final = directory / f"modular-{_recipe(root)}"
    if final.is_dir():
        return final
    with tempfile.TemporaryDirectory(prefix="build-", dir=directory) as work:
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        done = subprocess.run([*argv, str(SCRIPT), str(root), work, *DAEMONS], capture_output=True, text=True)
        if done.returncode != 0:
            raise HostError(f"modular daemons: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        (Path(work) / "files").rename(final)
    return final


def _recipe(root: Path) -> str:
    """Return a digest of what the daemons are built from."""
    status = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    found = re.search(r"(?m)^Package: libvirt0\n(?:.+\n)*?Version: (.+)$", status)
    if found is None:
        raise HostError(f"{root} has no libvirt")
    return hashlib.sha256("\0".join([SCRIPT.read_text(encoding="utf-8"), found[1], *DAEMONS]).encode()).hexdigest()[:12]


def switch(host: BootedHost, files: Path) -> None:
    """Install the daemons on a host, and switch it to them.

    Args:
        host: a host of RELEASE.
        files: what build() returned.
    """
    packed = subprocess.run(["tar", "-C", str(files), "-c", "."], check=True, capture_output=True).stdout
    host.run("tar", "-C", "/", "--no-same-owner", "--no-overwrite-dir", "-x", input=packed)
    host.sh(SWITCH.format(daemons=" ".join(DAEMONS)))


@contextlib.contextmanager
def started(root: Path, files: Path, name: str = MODULAR) -> Iterator[BootedHost]:
    """Boot a host with a copy of the project, and switch it to modular daemons.

    Args:
        root: as for build().
        files: what build() returned.
        name: the host's name.
    """
    with BootedHost(root, name, daemon=DAEMON) as host:
        switch(host, files)
        host.copy_project()
        yield host
