"""The RPM package on a host: Debian's rpm installs it, upgrades it and erases it, and runs its scriptlets."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.booted_host import BootedHost, started
from tests.helpers.installation import (
    CONF,
    GATEWAY,
    OURS_IN_DIR,
    UPSTREAM,
    answers,
    assert_judged,
    assert_not_judged,
    ours,
    snapshot,
)
from tests.helpers.packages import assert_not_gated_if_enforcing, build, is_gated

APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends"
RPM = "rpm --nodeps --force-debian"
"""dpkg has installed what the package requires, which rpm cannot know."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build the package, and a newer one."""
    return [build("build-rpm", tmp_path_factory.mktemp(f"rpm{version}"), version) for version in ("", "9")]


@pytest.fixture(scope="module")
def bare(roots: dict[str, Path], packages: list[Path]) -> Iterator[BootedHost]:
    """Boot a host with rpm, what the package requires, and both packages in /srv."""
    with started(roots, "bookworm", "rpm") as host:
        host.sh(f"apt-get -qq update && {APT} install rpm python3-lxml python3-libvirt")
        for name, package in zip(("old", "new"), packages):
            host.run("sh", "-c", f"cat >/srv/{name}.rpm", input=package.read_bytes())
        yield host


@pytest.fixture(scope="module")
def before(bare: BootedHost) -> list[str]:
    """List the files of papr-hook on the host without the package: none."""
    return ours(snapshot(bare))


@pytest.fixture
def installed(bare: BootedHost, before: list[str]) -> Iterator[BootedHost]:
    """Install the package, and erase it in the end."""
    rpm(bare, "-i /srv/old.rpm")
    yield bare
    rpm(bare, "-e papr-hook", check=False)
    bare.sh(f"rm -f {CONF}.rpmsave")


def rpm(host: BootedHost, arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run rpm."""
    return host.sh(f"{RPM} {arguments}", check=check)


def test_installing_enables_the_gateway(installed: BootedHost) -> None:
    """The gateway lays out guests, the hook refuses what bypasses it, and each file is as the package has it."""
    assert is_gated(installed)
    assert_judged(installed)
    assert rpm(installed, "-V papr-hook").stdout == ""
    modes = installed.sh(f"stat -c '%a %U %G' {OURS_IN_DIR} /usr/bin/papr-hook {CONF}").stdout.splitlines()
    assert modes == ["755 root root", "755 root root", "644 root root"]


def test_an_upgrade_keeps_settings_and_guests(installed: BootedHost) -> None:
    """The gateway stays enabled, libvirtd is not restarted, and a changed configuration is kept."""
    installed.write(CONF, "[papr-hook]\nspares = 2\n")
    pid = installed.sh("pidof libvirtd").stdout
    rpm(installed, "-U /srv/new.rpm")
    assert is_gated(installed)
    assert installed.sh("pidof libvirtd").stdout == pid
    assert installed.run("cat", CONF).stdout == "[papr-hook]\nspares = 2\n"
    assert installed.run("papr-hook", "--version").stdout.startswith("papr-hook 9.")


def test_an_upgrade_leaves_a_disabled_gateway_disabled(installed: BootedHost) -> None:
    """What the administrator has disabled is not enabled again."""
    installed.run("papr-hook", "gateway", "disable")
    rpm(installed, "-U /srv/new.rpm")
    assert not is_gated(installed)


def test_erasing_gives_libvirt_its_socket_back(installed: BootedHost, before: list[str]) -> None:
    """No file of the package is left, and guests start as without it."""
    rpm(installed, "-e papr-hook")
    assert installed.sh(f"ls {UPSTREAM}", check=False).returncode != 0
    assert installed.sh(f"systemctl is-active {GATEWAY}", check=False).stdout == "inactive\n"
    assert answers(installed)
    assert_not_judged(installed)
    assert ours(snapshot(installed)) == before


def test_an_enforcing_host_gets_no_gateway(bare: BootedHost) -> None:
    """Where SELinux is enforcing, the package says so before its files are there, and the gateway stays off."""
    try:
        assert_not_gated_if_enforcing(bare, f"{RPM} -i /srv/old.rpm")
        bare.run("papr-hook", "gateway", "enable")
        assert is_gated(bare)
    finally:
        rpm(bare, "-e papr-hook")
