"""Hosts with the gateway that shut down: units that save or stop guests find libvirt through it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.booted_host import RELEASES, BootedHost, started
from tests.helpers.installation import CROWDED, GATEWAY, install

SOCKETS = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"
VM = """\
[Unit]
After=libvirtd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/true
ExecStop=/usr/bin/virsh managedsave %i
[Install]
WantedBy=multi-user.target
"""
"""A unit that stops one guest, as administrators write it."""


@contextmanager
def gated(roots: dict[str, Path], release: str, sockets_by: str) -> Iterator[BootedHost]:
    """Boot a host with the gateway, and with two guests that units of their own stop."""
    with started(roots, release, f"{release}-{sockets_by}-down") as host:
        if sockets_by == "daemon":
            host.sh(f"systemctl stop libvirtd.service {SOCKETS}; systemctl mask {SOCKETS}")
            host.sh("systemctl start libvirtd.service")
        install(host)
        host.write("/etc/default/libvirt-guests", "ON_SHUTDOWN=suspend\n")
        host.write("/etc/systemd/system/libvirt-guests.service.d/own.conf", "[Unit]\nAfter=libvirtd.service\n")
        host.write("/etc/systemd/system/vm@.service", VM)
        host.run("rm", "/etc/systemd/system/libvirt-guests.service")
        host.sh("systemctl daemon-reload; systemctl start libvirt-guests vm@second")
        for name in ("crowd", "second"):
            host.virsh("define", "/dev/stdin", input=CROWDED.replace("crowd", name))
            host.virsh("start", name)
        yield host


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("sockets_by", ["systemd", "daemon"])
def test_guests_are_saved(roots: dict[str, Path], release: str, sockets_by: str) -> None:
    """Units that are ordered after libvirtd use it at shutdown, through the gateway."""
    with gated(roots, release, sockets_by) as host, host.shut_down("/var/lib/libvirt/qemu/save") as saved:
        assert sorted(os.listdir(saved)) == ["crowd.save", "second.save"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("sockets_by", ["systemd", "daemon"])
def test_guests_are_saved_where_no_client_came(roots: dict[str, Path], release: str, sockets_by: str) -> None:
    """The gateway starts with libvirtd: at shutdown, systemd starts no service for a client of its socket."""
    with gated(roots, release, sockets_by) as host:
        host.sh(f"systemctl stop libvirtd.service {GATEWAY}; systemctl start libvirtd.service")
        assert host.sh(f"systemctl is-active {GATEWAY}").stdout == "active\n"
        with host.shut_down("/var/lib/libvirt/qemu/save") as saved:
            assert sorted(os.listdir(saved)) == ["crowd.save", "second.save"]
