"""install.sh on hosts with systemd: a guest's start judged after every step, and nothing left of a step that failed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.harness.booted_host import CHECKOUT, BootedHost
from tests.helpers.cli import one_line
from tests.helpers.installation import (
    CLIENTS,
    CONF,
    CROWDED,
    HOOK,
    INSTALL,
    SHARE,
    UNITS,
    UPSTREAM,
    assert_judged,
    assert_not_judged,
    crowd,
    directly,
    install,
    interrupted,
    ours,
    refused,
    set_aside,
    snapshot,
)


@pytest.fixture
def installed(host: BootedHost) -> Iterator[BootedHost]:
    """A host with papr-hook, which it is rid of afterwards."""
    install(host)
    yield host
    host.sh(f"{INSTALL} --uninstall; rm -f {CONF}")


# What comes first finds a host that has neither Python nor anything else that papr-hook needs.

REFUSALS = {
    "no libvirt": ("mount --bind /dev/null /usr/sbin/libvirtd", "no libvirt found"),
    "old libvirt": (
        "printf '#!/bin/sh\\necho libvirtd 3.5.0\\n' >/srv/old; chmod 755 /srv/old; "
        "mount --bind /srv/old /usr/sbin/libvirtd",
        "libvirt 3.5.0 is too old: 3.6.0 is the first",
    ),
    "unknown distribution": (
        "sed s/debian/haiku/ /etc/os-release >/srv/haiku; mount --bind /srv/haiku /etc/os-release",
        "unknown distribution (haiku)",
    ),
    "no distribution": ("mount --bind /dev/null /etc/os-release", "unknown distribution (no /etc/os-release"),
    "no packages": ("mount --bind /dev/null /etc/apt/sources.list", "E: Unable to locate package python3"),
    "read-only etc": (
        "mount --bind /etc /etc; mount -o remount,bind,ro /etc",
        "Read-only file system; nothing has changed",
    ),
    "full disk": ("mount -t tmpfs -o size=64k none /usr/share", "No space left on device; nothing has changed"),
    "not root": ("as='setpriv --reuid 65534 --regid 65534 --clear-groups'", "must be run as root"),
}
"""What is wrong with a host, as a script for a mount namespace, and what the one line says of it."""


@pytest.mark.parametrize(("prepare", "says"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(host: BootedHost, prepare: str, says: str) -> None:
    """Whatever is wrong with a host, it is one line that says so."""
    assert says in refused(host, prepare)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("ln -s /usr/local/bin/shim", "/usr/bin/python3 leads out of /usr/bin, to /usr/local/bin/shim"),
        ("install -m 755 /srv/python3.6", "/usr/bin/python3 is Python 3.6: papr-hook needs 3.9 or later"),
    ],
    ids=["a shim", "too old"],
)
def test_python_that_is_no_good(host: BootedHost, make: str, says: str) -> None:
    """What the hook cannot run with is found before anything is done."""
    host.write("/srv/python3.6", "#!/bin/sh\necho 3.6\n", 0o755)
    with set_aside(host, "/usr/bin/python3"):
        host.sh(f"{make} /usr/bin/python3")
        assert says in refused(host)


def test_full_disk_is_left_empty(host: BootedHost) -> None:
    """What was staged before the disk was full is removed again."""
    script = f"mount -t tmpfs -o size=64k none /usr/share; {INSTALL}; find /usr/share -mindepth 1"
    done = host.run("unshare", "-m", "sh", "-c", script)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--bogus"], "unknown argument '--bogus'"),
        (["--root"], "--root needs"),
        (["--try", "--dry-run"], "takes no other option"),
        (["--uninstall", "--hook-only"], "does not take --hook-only"),
    ],
    ids=["unknown", "no directory", "try and more", "uninstall a part"],
)
def test_wrong_arguments(host: BootedHost, args: list[str], says: str) -> None:
    """Wrong arguments are status 2 and one line."""
    done = host.run(INSTALL, *args, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr)
    assert says in done.stderr


def test_dry_run(host: BootedHost) -> None:
    """--dry-run prints what would be done, as far as it is known without Python, and changes nothing."""
    before = snapshot(host)
    said = install(host, "--dry-run")
    assert "would be installed:" in said or re.search("python3 +would be installed with apt-get", said)
    if "would be installed:" in said:
        for place in (SHARE, "/usr/bin/papr-hook", HOOK, CONF, "libvirt hook", CLIENTS, "would be restarted"):
            assert place in said
    assert snapshot(host) == before
    assert host.sh(f"ls {UPSTREAM}", check=False).returncode != 0


def test_fedora_gets_its_packages_from_dnf(host: BootedHost) -> None:
    """On Fedora and its kin the plan is dnf's."""
    with set_aside(host, "/usr/bin/python3"):
        host.write("/srv/rocky", 'ID=rocky\nID_LIKE="rhel centos fedora"\n')
        script = f"mount --bind /srv/rocky /etc/os-release; {INSTALL} --dry-run"
        said = host.run("unshare", "-m", "sh", "-e", "-c", script).stdout
    for package in ("python3", "python3-lxml", "python3-libvirt", "python3-rich"):
        assert re.search(f"(?m)^  {package} +would be installed with dnf$", said), said


def test_install_then_start(host: BootedHost) -> None:
    """On a fresh host: it brings what it needs, and from then on a guest's start is judged."""
    before = snapshot(host)
    assert_not_judged(host)
    test_dry_run(host)
    said = install(host)
    assert re.search("(?m)^papr-hook [0-9.]+ is installed:$", said)
    for place in (SHARE, "/usr/bin/papr-hook", HOOK, CONF, UNITS, CLIENTS, "libvirtd .*was restarted"):
        assert re.search(f"(?m)^  {place}", said), said
    assert_judged(host)
    with crowd(host):
        assert "crowd: updated" in host.run("papr-hook", "adopt", "--yes").stdout
        host.virsh("start", "--paused", "crowd")
    assert "vPHB 0" in host.run("papr-hook", "show", input=CROWDED).stdout
    said = install(host, "--uninstall")
    assert "papr-hook is uninstalled; removed:" in said
    assert_not_judged(host)
    assert ours(snapshot(host)) == ours(before) == []


def test_interrupted_installation(host: BootedHost) -> None:
    """Ctrl-C in the middle of an installation leaves the host as it was."""
    interrupted(host)


def test_twice_is_as_once(installed: BootedHost) -> None:
    """A second installation changes nothing, nor does a second uninstallation."""
    once = snapshot(installed)
    assert "is installed" in install(installed)
    assert snapshot(installed) == once
    assert_judged(installed)
    install(installed, "--uninstall")
    gone = snapshot(installed)
    assert install(installed, "--uninstall") == "papr-hook is not installed: nothing to do\n"
    assert snapshot(installed) == gone
    assert ours(gone) == []


def test_guests_on_autostart_are_named(host: BootedHost) -> None:
    """A guest that the hook would refuse at the next boot is named, with the command that lays it out."""
    with crowd(host):
        directly(host, "autostart", "crowd")
        assert "papr-hook adopt crowd" in install(host)
        host.run("papr-hook", "adopt", "--yes", "crowd")
        assert "autostart" not in install(host)
    install(host, "--uninstall")


@pytest.fixture
def older(host: BootedHost) -> Iterator[str]:
    """Another version of the project: with other settings, another hook, and files that this one has not."""
    place = "/srv/older"
    host.copy_project(place)
    host.sh(f"""
        cd {place}
        sed -i 's/__version__ = .*/__version__ = "0.0.1"/' papr_hook/__init__.py
        sed -i 's/# Takes/# It takes/' papr_hook/config.py
        echo '# of the older version' >>hooks/qemu
        echo >papr_hook/older.py
        echo >man/papr-hook-older.8
    """)
    yield f"{place}/install.sh"
    host.sh(f"{INSTALL} --uninstall; rm -rf {place}")


def test_upgrade(host: BootedHost, older: str) -> None:
    """Over an older version it is as on a host that had none; a guest that ran goes on."""
    install(host)
    fresh = snapshot(host)
    install(host, "--uninstall")
    assert "papr-hook 0.0.1 is installed" in host.run(older).stdout
    assert_judged(host)
    assert "older" in "".join(snapshot(host))
    install(host)
    assert snapshot(host) == fresh
    assert_judged(host)


def test_running_guest_is_left_alone(host: BootedHost, older: str) -> None:
    """A guest that runs, and does not comply, survives an installation, an upgrade and an uninstallation."""
    with crowd(host):
        host.virsh("start", "--paused", "crowd")
        pid = host.sh("pgrep -f guest=crowd || pidof qemu-system-ppc64").stdout
        host.run(older)
        install(host)
        install(host, "--uninstall")
        assert host.virsh("domstate", "crowd").stdout.split() == ["paused"]
        assert host.sh("pgrep -f guest=crowd || pidof qemu-system-ppc64").stdout == pid


def test_interrupted_upgrade(host: BootedHost, older: str) -> None:
    """Ctrl-C in the middle of an upgrade leaves the older version, which works."""
    host.run(older)
    interrupted(host)
    assert_judged(host)


@pytest.mark.parametrize("mounted", ["/etc", "/usr/bin"])
def test_read_only_while_something_is_there(host: BootedHost, older: str, mounted: str) -> None:
    """An upgrade and an uninstallation that fail half-way leave the older version."""
    host.run(older)
    prepare = f"mount --bind {mounted} {mounted}; mount -o remount,bind,ro {mounted}"
    for args in ([], ["--uninstall"]):
        assert "Read-only file system; nothing has changed" in refused(host, prepare, *args)
    assert_judged(host)


def test_disk_that_fills_up(host: BootedHost, older: str) -> None:
    """An upgrade that runs out of space leaves the older version."""
    host.run(older)
    prepare = "mount -t tmpfs -o size=4k none /usr/share/man/man8"
    assert "No space left on device; nothing has changed" in refused(host, prepare)
    assert_judged(host)


def test_half_installed_version(host: BootedHost) -> None:
    """What a killed installation left is no hindrance, and does not stay."""
    install(host)
    whole = snapshot(host)
    host.sh(f"""
        rm -rf {SHARE}/papr_hook/domainxml /usr/bin/papr-hook {CONF}
        mkdir -p /usr/share/.papr-hook.papr-new/papr_hook /usr/share/.papr-hook.papr-old
        echo '#!/bin/sh' | tee {HOOK.replace("/qemu", "/.qemu.papr-new")} >{CONF.replace("/papr", "/.papr")}.papr-new
    """)
    install(host)
    assert snapshot(host) == whole
    assert_judged(host)
    host.sh(f"rm -rf {SHARE}; mkdir /usr/share/.papr-hook.papr-new")
    install(host, "--uninstall")
    assert ours(snapshot(host)) == []


def test_changed_conf_is_kept(installed: BootedHost) -> None:
    """A changed configuration is kept through an upgrade and an uninstallation."""
    installed.write(CONF, "[papr-hook]\non_noncompliant_start = warn\n")
    assert re.search(f"{CONF} .*: kept as they are", install(installed))
    assert_not_judged(installed)
    assert f"{CONF} was changed, and is kept." in install(installed, "--uninstall")
    assert installed.run("cat", CONF).stdout == "[papr-hook]\non_noncompliant_start = warn\n"
    assert [line.split()[0] for line in ours(snapshot(installed)) if " f " in line] == [CONF]


def test_root_into_an_empty_tree(host: BootedHost) -> None:
    """--root puts the files into a tree, changes nothing outside of it, and takes them out again."""
    before = snapshot(host)
    said = install(host, "--root", "/srv/tree")
    assert said.startswith("papr-hook ") and " is installed below /srv/tree:" in said
    files = host.sh("cd /srv/tree && find . -type f -not -path './usr/share/papr-hook/papr_hook/*' | sort").stdout
    pages = host.sh(f"cd {CHECKOUT}/man && ls papr-hook*").stdout.split()
    expected = [CONF, HOOK, "/usr/bin/papr-hook", f"{SHARE}/papr-hook.conf"]
    expected += ["/usr/share/bash-completion/completions/papr-hook", "/usr/share/zsh/site-functions/_papr-hook"]
    expected += [f"{SHARE}/hooks/vdsm_before_vm_start"]
    expected += [f"/usr/share/man/man{page[-1]}/{page}" for page in pages]
    units = host.sh(f"cd {CHECKOUT}/systemd && ls -p | grep -v /").stdout.split()
    expected += [f"{UNITS}/{unit}" for unit in units]
    drop_ins = host.sh(f"cd {CHECKOUT} && find init.d selinux systemd/*/ -type f").stdout.split()
    expected += [f"{SHARE}/{file}" for file in drop_ins]
    assert files.split() == sorted(f".{path}" for path in expected)
    assert host.sh("cat /srv/tree/etc/papr-hook.conf").stdout.startswith("[papr-hook]\n")
    assert snapshot(host) == before
    install(host, "--root", "/srv/tree", "--uninstall")
    assert host.sh("find /srv/tree -type f; rm -r /srv/tree").stdout == ""
