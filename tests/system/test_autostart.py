"""A host of each kind that boots with guests on autostart that do not comply: ten of them run, laid out."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import modular
from tests.harness.booted_host import RELEASES, BootedHost
from tests.harness.modular import MODULAR
from tests.helpers.guests import complies
from tests.helpers.installation import CROWDED, install
from tests.helpers.polling import wait_until

GUESTS = [f"auto{number}" for number in range(10)]
SECONDS = 30
"""Within which the guests run once the daemon answers."""

DEFINE = """
for name in $(seq -f auto%g 0 9); do
    sed "s,<name>.*</name>,<name>$name</name>," >/tmp/guest.xml <<'END'
GUEST
END
    virsh -q -c qemu:///system?socket=UPSTREAM "define /tmp/guest.xml; autostart $name"
done
"""
"""Define the guests past the gateway, as an older installation had them."""

ONCE = """
sed -i "s,<name>.*</name>,<name>once</name>," /tmp/guest.xml
virsh -q -c qemu:///system?socket=UPSTREAM "define /tmp/guest.xml; autostart --once once"
"""
"""Put a further guest on autostart for the next boot, which libvirt 11.2 and later can."""


@contextmanager
def writable(root: Path) -> Iterator[Path]:
    """Mount a release's root so that what a host writes is there when it boots again."""
    with tempfile.TemporaryDirectory(prefix="autostart-", dir="/var/tmp") as name:
        upper, work, merged = (Path(name, part) for part in ("upper", "work", "merged"))
        for folder in (upper, work, merged):
            folder.mkdir()
        options = f"lowerdir={root},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", str(merged)], check=True)


@pytest.mark.parametrize("kind", [*RELEASES, MODULAR])
def test_boot_with_refused_autostarts(kind: str, cache: Path, roots: dict[str, Path]) -> None:
    """The guests run within 30 s of the daemon's answer, laid out, without anybody's help."""
    is_modular = kind == MODULAR
    release, daemon = (modular.RELEASE, modular.DAEMON) if is_modular else (kind, "libvirtd")
    with writable(roots[release]) as root:
        with BootedHost(root, f"first-{kind}", volatile=False, daemon=daemon) as host:
            if is_modular:
                modular.switch(host, modular.build(cache, roots[release]))
            host.copy_project()
            install(host)
            host.sh(DEFINE.replace("GUEST", CROWDED).replace("UPSTREAM", host.upstream))
            once = host.sh(ONCE.replace("UPSTREAM", host.upstream), check=False).returncode == 0
            assert not complies(host.virsh("dumpxml", "auto0").stdout)
            with host.shut_down("/var"):
                pass
        with BootedHost(root, f"second-{kind}", volatile=False, daemon=daemon) as host:
            host.virsh("list")
            answered = time.monotonic()
            names = {*GUESTS, "once"} if once else set(GUESTS)
            wait_until(lambda: set(host.virsh("list", "--name").stdout.split()) == names, SECONDS)
            print(f"{kind}: ten guests run {time.monotonic() - answered:.1f} s after the daemon answers")
            assert all(complies(host.virsh("dumpxml", name).stdout) for name in names)
            wait_until(lambda: journal(host).count("started in place of its refused autostart") == len(names))
            assert "it is laid out and started once libvirt serves clients" in journal(host)


def journal(host: BootedHost) -> str:
    """Return what papr-hook wrote to the host's journal since it booted."""
    return host.run("journalctl", "-b", "-t", "papr-hook", "--no-pager").stdout
