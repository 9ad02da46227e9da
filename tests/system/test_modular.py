"""The gateway in front of virtqemud where its modular siblings matter, or those who come to it by another way.

test_gateway.py and test_gateway_failures.py have what it does in front of any daemon.
"""

from __future__ import annotations

import pytest

from tests.harness.booted_host import BootedHost
from tests.harness.modular import DAEMONS, MODULAR
from tests.helpers.installation import (
    CROWDED,
    answers,
    assert_judged,
    crowd,
    install,
    ours,
    pci_roots,
    snapshot,
)
from tests.helpers.polling import wait_until

pytestmark = pytest.mark.parametrize("host", [MODULAR], indirect=True, scope="module")

PROXY = "/run/libvirt/libvirt-sock"
"""Where virtproxyd listens: the socket of libvirtd, for clients that know no other."""

URIS = {"its socket": "qemu:///system", "virtproxyd": "qemu:///system?mode=legacy"}

SIBLINGS = [daemon for daemon in DAEMONS if daemon not in ("virtqemud", "virtproxyd")]
"""Daemons that virtqemud itself is a client of."""

SSH = """
systemctl mask ssh.service ssh.socket sshd-unix-local.socket
DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install openssh-client openssh-server
usermod -p '*' member
mkdir -p /run/sshd /root/.ssh ~member/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub ~member/.ssh/authorized_keys
chown -R member: ~member/.ssh
cat >/root/.ssh/config <<'END'
Host far
    User member
    StrictHostKeyChecking no
    LogLevel ERROR
    ProxyCommand /usr/sbin/sshd -i -o UsePAM=no
END
"""
"""Let root come to the host as a user of it by ssh. The container shares the machine's network, so no sshd listens."""


@pytest.fixture(scope="module")
def users(host: BootedHost) -> BootedHost:
    """Add a user who may use libvirt, and one who may not."""
    host.sh("useradd -m -s /bin/bash -G libvirt member; useradd -m stranger")
    return host


def lays_out(host: BootedHost, uri: str = URIS["its socket"]) -> bool:
    """Whether a definition is laid out on its way to libvirt."""
    host.run("virsh", "-q", "-c", uri, "define", "/dev/stdin", input=CROWDED)
    found = pci_roots(host)
    host.virsh("undefine", "crowd")
    return found == 6


def listener(host: BootedHost, path: str) -> str:
    """Return the inode number of a socket, which another one at the same path does not have."""
    return host.run("stat", "-c", "%i", path).stdout


def test_in_front_of_virtqemud(host: BootedHost) -> None:
    """install.sh sets it up there, and takes it away again; virtproxyd keeps the socket of libvirtd."""
    before = snapshot(host)
    proxy = listener(host, PROXY)
    said = " ".join(install(host).split())
    assert f"{host.clients} gateway; virtqemud's own socket is in upstream/" in said
    assert PROXY not in said
    assert lays_out(host)
    assert_judged(host)
    said = install(host, "--uninstall")
    assert ours(snapshot(host)) == ours(before)
    assert answers(host)
    assert not lays_out(host)
    assert host.sh("ls -d /run/libvirt/upstream", check=False).stdout == ""
    assert listener(host, PROXY) == proxy


@pytest.mark.parametrize("units", ["virtqemud.socket", "virtqemud", "virtproxyd", " ".join(SIBLINGS)])
def test_restarts(gated: BootedHost, units: str) -> None:
    """After a restart of any daemon, libvirt answers through the gateway, and knows its networks and pools."""
    gated.sh(f"systemctl restart {units}")
    assert all(lays_out(gated, uri) for uri in URIS.values())
    for command in ("net-list", "pool-list", "secret-list", "nodedev-list"):
        gated.virsh(command)
    assert gated.run("systemctl", "is-active", gated.gateway).stdout == "active\n"


def test_who_may_what(users: BootedHost) -> None:
    """root, a member of libvirt's group and a stranger get the same answers with a gateway and without."""

    def ask() -> list[tuple[int, str, str]]:
        found = []
        for user in ("root", "member", "stranger"):
            for uri in URIS.values():
                for command in ("uri", "list --all", "net-list --all", "domstate crowd", "desc crowd new --config"):
                    argv = ("runuser", "-u", user, "--", "virsh", "-q", "-c", uri, *command.split())
                    done = users.run(*argv, check=False)
                    found.append((done.returncode, done.stdout, done.stderr))
        return found

    with crowd(users):
        before = ask()
        assert [code for code, _, _ in before] == 20 * [0] + 10 * [1]
        install(users)
        try:
            assert ask() == before
        finally:
            install(users, "--uninstall")


@pytest.mark.parametrize("uri", ["qemu+ssh://far/system", "qemu+ssh://far/system?mode=legacy"])
def test_through_ssh(users: BootedHost, gated: BootedHost, uri: str) -> None:
    """virt-ssh-helper, which ssh runs on this host as a user, finds the gateway."""
    if users.sh("ls /root/.ssh/config", check=False).returncode != 0:
        users.sh(SSH)
    assert lays_out(gated, uri)
    with crowd(gated):
        gated.run("virsh", "-q", "-c", uri, "start", "--paused", "crowd")
        assert pci_roots(gated) == 6


def test_doctor(gated: BootedHost) -> None:
    """papr-hook doctor finds the gateway in front of virtqemud, and nothing wrong with virtproxyd's socket."""
    said = gated.run("papr-hook", "doctor", check=False).stdout
    assert f"{gated.clients} is the gateway's, in front of {gated.upstream}" in said
    assert PROXY not in said


def test_idle_virtqemud_ends(gated: BootedHost) -> None:
    """virtqemud ends when it has nothing to do, as its units have it; the gateway stays, and a client starts both."""
    gated.write("/etc/default/virtqemud", 'VIRTQEMUD_ARGS="--timeout 1"\n')
    try:
        gated.run("systemctl", "restart", "virtqemud")
        wait_until(lambda: gated.sh("systemctl is-active virtqemud", check=False).stdout == "inactive\n")
        assert gated.run("systemctl", "is-active", gated.gateway).stdout == "active\n"
        assert lays_out(gated)
    finally:
        gated.sh("rm /etc/default/virtqemud; systemctl restart virtqemud")


def test_nothing_failed_is_left(gated: BootedHost) -> None:
    """After an uninstallation systemd has no failed unit of the gateway."""
    gated.sh(f"mv /usr/bin/papr-hook /usr/bin/aside; systemctl stop {gated.gateway}")
    wait_until(lambda: answers(gated))
    install(gated, "--uninstall")
    assert gated.sh("systemctl list-units --all --no-legend --plain 'papr-hook-*'; rm /usr/bin/aside").stdout == ""
    assert answers(gated)


def test_back_to_libvirtd(gated: BootedHost) -> None:
    """Where an administrator goes back to libvirtd, its gateway is there."""
    gated.sh("systemctl start libvirtd.socket")
    try:
        assert lays_out(gated, f"qemu:///system?socket={PROXY}")
        assert gated.sh("systemctl is-active libvirtd virtqemud.socket", check=False).stdout == "active\ninactive\n"
    finally:
        sockets = " ".join(f"{daemon}{kind}.socket" for daemon in DAEMONS for kind in ("", "-ro", "-admin"))
        gated.sh(f"systemctl stop libvirtd.socket libvirtd.service; systemctl start {sockets}")
    assert lays_out(gated)
