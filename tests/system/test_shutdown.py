"""Hosts with the gateway that shut down: units that save or stop guests find libvirt through it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness.booted_host import RELEASES, BootedHost
from tests.harness.modular import DAEMONS, MODULAR, Boot
from tests.helpers.installation import CROWDED, install

KINDS = [*((release, by) for release in RELEASES for by in ("systemd", "daemon")), (MODULAR, "systemd")]
"""Kinds of hosts, and who makes the daemon's sockets. virtqemud's units need systemd to make them."""

VM = """\
[Unit]
After=DAEMONS
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
def gated(boot: Boot, kind: str, sockets_by: str) -> Iterator[BootedHost]:
    """Boot a host with the gateway, and with two guests that units of their own stop."""
    with boot(kind, f"{kind}-{sockets_by}-down") as host:
        if sockets_by == "daemon":
            sockets = host.units.partition(" ")[2]
            host.sh(f"systemctl stop {host.units}; systemctl mask {sockets}; systemctl start {host.daemon}")
        install(host)
        # virtqemud opens a connection to its siblings for each client. At shutdown systemd starts none of them, so a
        # client gets nowhere unless they run, with a gateway and without.
        daemons = " ".join(f"{daemon}.service" for daemon in (DAEMONS if kind == MODULAR else [host.daemon]))
        host.sh(f"systemctl start {daemons}")
        host.write("/etc/default/libvirt-guests", "ON_SHUTDOWN=suspend\n")
        host.write("/etc/systemd/system/libvirt-guests.service.d/own.conf", f"[Unit]\nAfter={daemons}\n")
        host.write("/etc/systemd/system/vm@.service", VM.replace("DAEMONS", daemons))
        host.run("rm", "/etc/systemd/system/libvirt-guests.service")
        host.sh("systemctl daemon-reload; systemctl start libvirt-guests vm@second")
        for name in ("crowd", "second"):
            host.virsh("define", "/dev/stdin", input=CROWDED.replace("crowd", name))
            host.virsh("start", name)
        yield host


@pytest.mark.parametrize(("kind", "sockets_by"), KINDS)
def test_guests_are_saved(boot: Boot, kind: str, sockets_by: str) -> None:
    """Units that are ordered after the daemon use it at shutdown, through the gateway."""
    with gated(boot, kind, sockets_by) as host, host.shut_down("/var/lib/libvirt/qemu/save") as saved:
        assert sorted(os.listdir(saved)) == ["crowd.save", "second.save"]


@pytest.mark.parametrize(("kind", "sockets_by"), KINDS)
def test_guests_are_saved_where_no_client_came(boot: Boot, kind: str, sockets_by: str) -> None:
    """The gateway starts with the daemon: at shutdown, systemd starts no service for a client of its socket."""
    with gated(boot, kind, sockets_by) as host:
        host.sh(f"systemctl stop {host.daemon}.service {host.gateway}; systemctl start {host.daemon}.service")
        assert host.sh(f"systemctl is-active {host.gateway}").stdout == "active\n"
        with host.shut_down("/var/lib/libvirt/qemu/save") as saved:
            assert sorted(os.listdir(saved)) == ["crowd.save", "second.save"]
