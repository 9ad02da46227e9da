"""install.sh on hosts where other programs have hooks, or files where papr-hook's would go."""

from __future__ import annotations

import pytest

from tests.harness.booted_host import BootedHost
from tests.helpers.installation import (
    HOOK,
    INSTALL,
    OURS_IN_DIR,
    assert_judged,
    assert_not_judged,
    crowd,
    directly,
    install,
    ours,
    refused,
    snapshot,
)

RECORD = """\
#!/bin/sh
# Another program's hook: it records how it was called, and what it read, but for the guest's number.
read=$(sed "1s/ id='[0-9]*'//" | sha256sum)
echo "{name} $* $read" >>/srv/foreign-calls
"""

FOREIGN_HOOKS = {
    "a hook": ["qemu"],
    "a hook and scripts": ["qemu", "qemu.d/10-first", "qemu.d/95-last"],
    "scripts": ["qemu.d/10-first", "qemu.d/95-last"],
}


@pytest.fixture(scope="module", autouse=True)
def packages(host: BootedHost) -> None:
    """Bring the packages that papr-hook needs: they stay when it goes."""
    install(host)
    install(host, "--uninstall")


@pytest.mark.parametrize("names", FOREIGN_HOOKS.values(), ids=FOREIGN_HOOKS)
def test_hooks_of_another_program(host: BootedHost, names: list[str]) -> None:
    """Hooks of other programs still run, in their order, and read the XML that they read before."""
    for name in names:
        host.write(f"{HOOK[: -len('qemu')]}{name}", RECORD.format(name=name), 0o755)
    tell(host)
    before = snapshot(host)
    try:
        with crowd(host):
            alone = calls_of_first_start(host)
            install(host)
            with_us = calls_of_first_start(host)
            assert host.virsh("domstate", "crowd").stdout.split() == ["shut", "off"]
        assert_judged(host)
        ours_at = OURS_IN_DIR if "qemu" in names else HOOK
        assert [line.split()[0] for line in ours(snapshot(host)) if ours_at in line]
        # A refused start comes no further than its preparation.
        assert [call for call in alone if " prepare " in call] == [call for call in with_us if " prepare " in call]
        assert [call.split()[0] for call in alone if " prepare " in call] == names
        install(host, "--uninstall")
        assert snapshot(host) == before
        assert_not_judged(host)
    finally:
        host.sh(f"{INSTALL} --uninstall; rm -rf /etc/libvirt/hooks/*")
        tell(host)


def tell(host: BootedHost) -> None:
    """Have libvirtd look for hooks; without /bin/kill, which is not there, systemd could not reload it."""
    host.sh("systemctl kill -s HUP libvirtd")


def calls_of_first_start(host: BootedHost) -> list[str]:
    """Start the guest, stop it if it started, and return the calls that the foreign hooks recorded."""
    host.sh("rm -f /srv/foreign-calls")
    directly(host, "start", "--paused", "crowd", check=False)
    calls = host.run("cat", "/srv/foreign-calls").stdout.splitlines()
    host.virsh("destroy", "crowd", check=False)
    return calls


def test_hook_of_another_program_and_a_libvirt_without_qemu_d(host: BootedHost) -> None:
    """Nothing is installed if libvirt runs one hook only, and that is another program's."""
    host.write(HOOK, RECORD.format(name="qemu"), 0o755)
    host.write("/srv/old", "#!/bin/sh\necho libvirtd 6.4.0\n", 0o755)
    try:
        said = refused(host, "mount --bind /srv/old /usr/sbin/libvirtd")
        assert f"{HOOK} belongs to another program, and libvirt 6.4.0 runs no other hook" in said
    finally:
        host.sh(f"rm {HOOK}")


@pytest.mark.parametrize("path", ["/usr/bin/papr-hook", OURS_IN_DIR])
def test_a_file_of_another_program_is_kept(host: BootedHost, path: str) -> None:
    """Where another program has a file that papr-hook would replace, it is named, and nothing is installed."""
    host.write(path, "#!/bin/sh\necho mine\n", 0o755)
    try:
        before = snapshot(host)
        assert f"{path} belongs to another program" in refused(host)
        assert f"{path} belongs to another program, and is kept." in install(host, "--uninstall")
        assert snapshot(host) == before
    finally:
        host.run("rm", path)
