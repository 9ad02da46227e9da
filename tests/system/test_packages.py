"""The Debian and the RPM package: built from the tree, checked, and the former used on hosts of both releases."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.booted_host import BootedHost
from tests.helpers.installation import (
    CONF,
    GATEWAY,
    OURS_IN_DIR,
    UPSTREAM,
    answers,
    assert_not_judged,
    ours,
    snapshot,
)
from tests.helpers.packages import assert_not_gated_if_enforcing, build, is_gated
from tests.helpers.paths import PROJECT


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the Debian package."""
    return build("build-deb", tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module")
def newer_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as a newer version."""
    return build("build-deb", tmp_path_factory.mktemp("newer"), "9")


def judge(argv: list[str | Path], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that judges packages and leaves temporary files, which go below a directory."""
    environment = {**os.environ, "TMPDIR": str(directory)}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)


def test_lintian_is_content(deb: Path, tmp_path: Path) -> None:
    """lintian finds neither an error nor a warning."""
    done = judge(["lintian", "--allow-root", "--fail-on", "error,warning", deb], tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


def test_rpmlint_is_content(tmp_path: Path) -> None:
    """rpmlint finds nothing beside what its configuration explains."""
    package = build("build-rpm", tmp_path)
    files = [package, PROJECT / "packaging/papr-hook.spec"]
    done = judge(["rpmlint", "-c", PROJECT / "packaging/rpmlint.toml", *files], tmp_path)
    assert "0 errors, 0 warnings" in done.stdout, done.stdout
    listed = subprocess.run(["rpm", "-qlp", package], capture_output=True, text=True, check=True).stdout.split()
    completions = {"/usr/share/bash-completion/completions/papr-hook", "/usr/share/zsh/site-functions/_papr-hook"}
    assert {OURS_IN_DIR, CONF, "/usr/bin/papr-hook", "/usr/share/man/man8/papr-hook.8.gz"} | completions <= set(listed)


@pytest.fixture(scope="module")
def packaged(host: BootedHost, deb: Path) -> BootedHost:
    """Install the package on a host that had none."""
    apt(host, "update")
    add(host, deb)
    return host


def add(host: BootedHost, package: Path) -> None:
    """Install a package with apt."""
    host.run("sh", "-c", "cat >/srv/papr-hook.deb", input=package.read_bytes())
    apt(host, "install", "/srv/papr-hook.deb")


def apt(host: BootedHost, *args: str) -> None:
    """Run apt-get without questions."""
    host.sh(f"DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends {' '.join(args)}")


def test_install(packaged: BootedHost) -> None:
    """After apt install the gateway lays guests out, and the hook is in place."""
    assert is_gated(packaged)
    assert packaged.sh(f"test -x {OURS_IN_DIR}").returncode == 0


def test_install_sh_refuses(packaged: BootedHost) -> None:
    """install.sh leaves a package alone."""
    before = snapshot(packaged)
    done = packaged.run("/srv/papr-hook/install.sh", check=False)
    assert done.returncode == 1
    assert "papr-hook is installed as a package" in done.stderr
    assert snapshot(packaged) == before


def test_upgrade(packaged: BootedHost, newer_deb: Path) -> None:
    """An upgrade keeps the gateway, a changed configuration, and libvirt's clients connected."""
    packaged.write(CONF, "[papr-hook]\nspares = 2\n")
    pid = packaged.sh("pidof libvirtd").stdout
    add(packaged, newer_deb)
    assert is_gated(packaged)
    assert packaged.sh("pidof libvirtd").stdout == pid
    assert packaged.run("cat", CONF).stdout == "[papr-hook]\nspares = 2\n"
    assert packaged.run("papr-hook", "--version").stdout.startswith("papr-hook 9.")


def test_upgrade_leaves_a_disabled_gateway_disabled(packaged: BootedHost, newer_deb: Path) -> None:
    """What the administrator has disabled is not enabled again."""
    packaged.run("papr-hook", "gateway", "disable")
    apt(packaged, "install", "--reinstall", "/srv/papr-hook.deb")
    assert not is_gated(packaged)
    packaged.run("papr-hook", "gateway", "enable")
    assert is_gated(packaged)


def test_remove_and_purge(packaged: BootedHost, deb: Path) -> None:
    """Without the package libvirt has its socket back; its configuration stays until it is purged."""
    apt(packaged, "remove", "papr-hook")
    assert packaged.sh(f"ls {UPSTREAM}", check=False).returncode != 0
    assert answers(packaged)
    assert_not_judged(packaged)
    add(packaged, deb)
    assert packaged.sh(f"systemctl is-active {GATEWAY}").stdout == "active\n"
    apt(packaged, "purge", "papr-hook")
    assert answers(packaged)
    assert [line for line in ours(snapshot(packaged)) if "/usr/share/python3" not in line] == []


def test_an_enforcing_host_gets_no_gateway(packaged: BootedHost) -> None:
    """Where SELinux is enforcing, the package says so before its files are there, and the gateway stays off."""
    try:
        assert_not_gated_if_enforcing(packaged, "dpkg -i /srv/papr-hook.deb")
    finally:
        apt(packaged, "purge", "papr-hook")
