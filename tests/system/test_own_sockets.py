"""The gateway in front of a libvirtd that makes its own sockets, on hosts with systemd."""

from __future__ import annotations

from tests.harness.booted_host import BootedHost
from tests.helpers.installation import (
    CLIENTS,
    CROWDED,
    GATEWAY,
    INSTALL,
    answers,
    install,
    ours,
    pci_roots,
    refused,
    snapshot,
)
from tests.helpers.polling import wait_until


def test_libvirtd_that_makes_its_own_sockets(host: BootedHost) -> None:
    """Without socket activation, unix_sock_dir moves them; clients find all of them where they were."""
    sockets = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"
    host.sh(f"systemctl stop libvirtd.service {sockets}; systemctl mask --runtime {sockets}")
    host.sh("cp -p /etc/libvirt/libvirtd.conf /srv/libvirtd.conf; systemctl start libvirtd.service")
    try:
        mode = host.sh(f"stat -c '%a %U %G' {CLIENTS}").stdout
        before = snapshot(host)
        install(host)
        assert host.sh(f"stat -c '%a %U %G' {CLIENTS}").stdout == mode
        host.virsh("define", "/dev/stdin", input=CROWDED)
        assert pci_roots(host) == 6
        host.run("virsh", "-r", "-c", "qemu:///system", "uri")
        host.run("virt-admin", "uri")
        install(host)
        host.sh(f"systemctl restart libvirtd; systemctl kill -s KILL {GATEWAY}")
        wait_until(lambda: answers(host))
        host.sh("systemctl stop libvirtd")
        install(host)
        host.sh("systemctl start libvirtd")
        host.virsh("undefine", "crowd")
        host.virsh("define", "/dev/stdin", input=CROWDED)
        assert pci_roots(host) == 6
        install(host, "--uninstall")
        assert ours(snapshot(host)) == ours(before)
        assert host.sh("cmp /etc/libvirt/libvirtd.conf /srv/libvirtd.conf").returncode == 0
        for virsh in (["virsh"], ["virsh", "-r"], ["virt-admin"]):
            host.run(*virsh, "uri")
        assert host.sh("find /run/libvirt -type l").stdout == ""
        host.write("/etc/libvirt/libvirtd.conf", 'unix_sock_dir = "/run/elsewhere"\n')
        assert "already sets unix_sock_dir" in refused(host)
    finally:
        host.sh(f"virsh undefine crowd; {INSTALL} --uninstall; cp -p /srv/libvirtd.conf /etc/libvirt/libvirtd.conf")
        host.sh(f"systemctl stop libvirtd; systemctl unmask --runtime {sockets}; systemctl start {sockets}")
