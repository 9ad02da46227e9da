"""papr-hook on a POWER host: KVM guests with passed-through PCI devices, as libvirt and the guests' Linux see them.

The tests share one host and run in their order: guests, a reboot, the removal.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.helpers.domain_xml import NUMA_CELLS, hostdev, nic
from tests.helpers.hosts_page import POWER, assert_described

from .guests import (
    TWO_MACS,
    TWO_NICS,
    UPSTREAM,
    addresses,
    defined,
    domain,
    iommu_groups,
    locked_memory_kib,
    wait_for,
    wait_until,
)
from .host import CHECKOUT, NICS, PowerHost

pytestmark = pytest.mark.power

PE = ("0003:00:01.0", "0003:00:01.1")
"""The two functions of one card, which are one IOMMU group."""

PE_MACS = tuple(NICS[address] for address in PE)
WHOLE_PE = "".join(map(hostdev, PE))

ALONE = "0001:00:01.0"
"""A card in an IOMMU group of its own."""


def show(host: PowerHost, name: str) -> dict[str, str]:
    """Return the PCI addresses that papr-hook shows for a running guest's NICs, by their MAC addresses."""
    shown = json.loads(host.sh(f"virsh dumpxml {name} | papr-hook show --json -").stdout)
    found = {}
    for device in shown["devices"]:
        emulated = re.search(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", device["device"])
        address = NICS.get(device["host_address"] or "") or (emulated and emulated[0])
        if address:
            found[address] = device["guest_address"]
    return found


def complies(host: PowerHost, name: str) -> bool:
    """Return whether a guest keeps the rules."""
    done = host.run("papr-hook", "check", "-c", "qemu:///system", name, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def planned_locked_memory(host: PowerHost, name: str) -> int:
    """Return the locked-memory limit that papr-hook plan names for a guest as it is, in KiB."""
    (plan,) = json.loads(host.run("papr-hook", "plan", "--json", "-c", "qemu:///system", name).stdout)
    return int(plan["before"]["locked_memory"])


def test_the_host_is_a_power_host(bare: PowerHost) -> None:
    """It has KVM, and two functions in one IOMMU group. AppArmor enforces libvirt's profile. docs/hosts.md lists it."""
    assert_described(POWER, "libvirtd", lambda *argv: bare.run(*argv).stdout)
    assert bare.run("test", "-c", "/dev/kvm").returncode == 0
    assert bare.sh(f"ls /sys/bus/pci/devices/{PE[0]}/iommu_group/devices").stdout.split() == list(PE)
    assert json.loads(bare.run("aa-status", "--json").stdout)["profiles"]["libvirtd"] == "enforce"


def test_a_start_past_the_gateway_is_refused_once(host: PowerHost) -> None:
    """The hook refuses a guest that does not comply, and lays it out: it starts the second time."""
    with defined(host, "past", domain("past", WHOLE_PE + TWO_NICS), UPSTREAM):
        refused = host.run("virsh", "-c", UPSTREAM, "start", "past", "--paused", check=False)
        assert refused.returncode == 1
        assert "hook" in refused.stderr
        wait_until(host, "papr-hook check -c qemu:///system past")
        host.run("virsh", "-c", UPSTREAM, "start", "past", "--paused")


def test_the_locked_memory_of_an_emulated_guest(host: PowerHost) -> None:
    """papr-hook plan names the limit that libvirt sets for a guest without KVM and with a passed-through device."""
    with defined(host, "locked", domain("locked", hostdev(ALONE) + TWO_NICS, virt="qemu")):
        host.virsh("start", "locked", "--paused")
        assert locked_memory_kib(host, "locked") == planned_locked_memory(host, "locked")


def test_a_whole_endpoint(host: PowerHost) -> None:
    """Both functions are on one vPHB and in one group of the guest's Linux, where papr-hook show has them.

    Another card is attached to the running guest, and detached. papr-hook doctor finds each device in its place.
    """
    host.write("/root/card.xml", hostdev(ALONE))
    with defined(host, "whole", domain("whole", WHOLE_PE + TWO_NICS)):
        assert complies(host, "whole")
        host.virsh("start", "whole")
        seen = wait_for(host, "whole", *TWO_MACS, *PE_MACS)
        assert [addresses(seen)[mac] for mac in PE_MACS] == ["0001:00:01.0", "0001:00:02.0"]
        assert len(iommu_groups(seen, *PE_MACS)) == 1
        assert addresses(seen) == show(host, "whole")
        assert locked_memory_kib(host, "whole") == planned_locked_memory(host, "whole")
        assert host.run("papr-hook", "doctor", "whole").stdout.endswith("whole: nothing is wrong\n")

        host.virsh("attach-device", "whole", "/root/card.xml", "--live")
        seen = wait_for(host, "whole", NICS[ALONE])
        card = seen.by_mac(NICS[ALONE])
        assert card is not None
        assert seen.in_domain(card.domain) == (card,)
        assert addresses(seen) == show(host, "whole")

        host.virsh("detach-device", "whole", "/root/card.xml", "--live")
        wait_until(host, "! virsh -q dumpxml whole | grep -q \"domain='0x0001'\"")
        assert complies(host, "whole")


def test_an_endpoint_in_part(host: PowerHost) -> None:
    """A function alone cannot be started: papr-hook check says so with two remedies, and the command works."""
    with defined(host, "part", domain("part", hostdev(PE[0]) + TWO_NICS)):
        said = host.run("papr-hook", "check", "-c", "qemu:///system", "part", check=False).stdout
        assert PE[1] in said
        assert "incomplete_pe = add" in said
        assert "virsh nodedev-detach pci_0003_00_01_1" in said
        failed = host.virsh("start", "part", "--paused", check=False)
        assert "not viable" in failed.stderr
        host.virsh("nodedev-detach", "pci_0003_00_01_1")
        try:
            host.virsh("start", "part", "--paused")
            host.virsh("destroy", "part")
        finally:
            host.virsh("nodedev-reattach", "pci_0003_00_01_1")


def test_an_attach_of_an_endpoint_in_part(host: PowerHost) -> None:
    """It fails while the other function has a driver of the host. The error has the command that frees that one."""
    host.write("/root/function.xml", hostdev(PE[0]))
    with defined(host, "plug", domain("plug", TWO_NICS)):
        host.virsh("start", "plug", "--paused")
        failed = host.virsh("attach-device", "plug", "/root/function.xml", "--live", check=False)
        assert failed.returncode == 1
        assert "virsh nodedev-detach pci_0003_00_01_1" in failed.stderr


def test_an_endpoint_is_completed(host: PowerHost) -> None:
    """With incomplete_pe = add, the guest gets the other function as well, on the vPHB of its NUMA node."""
    host.write("/etc/papr-hook.conf", "[papr-hook]\nincomplete_pe = add\n")
    bound = "".join(f"<memnode cellid='{node}' mode='strict' nodeset='{node}'/>" for node in (0, 1))
    cells = NUMA_CELLS.replace("memory='1' unit='GiB'", "memory='256' unit='MiB'")
    xml = domain("added", hostdev(PE[0]) + TWO_NICS, extra=f"{cells}<numatune>{bound}</numatune>")
    try:
        with defined(host, "added", xml.replace("<vcpu>1<", "<vcpu>4<")):
            host.virsh("start", "added")
            seen = wait_for(host, "added", *PE_MACS)
            assert len(iommu_groups(seen, *PE_MACS)) == 1
            assert {device.numa_node for device in seen.devices if device.mac in PE_MACS} == {1}
            assert addresses(seen) == show(host, "added")
    finally:
        host.run("rm", "/etc/papr-hook.conf")


def test_a_managed_save(host: PowerHost) -> None:
    """A guest without passed-through devices is saved, and runs again with the same layout."""
    with defined(host, "saved", domain("saved", TWO_NICS)):
        host.virsh("start", "saved")
        assert addresses(wait_for(host, "saved", *TWO_MACS)) == show(host, "saved")
        assert locked_memory_kib(host, "saved") == planned_locked_memory(host, "saved")
        before = show(host, "saved")
        host.virsh("managedsave", "saved")
        host.virsh("start", "saved")
        assert host.virsh("domstate", "saved").stdout.strip() == "running"
        assert show(host, "saved") == before


def test_guests_start_with_the_host(host: PowerHost) -> None:
    """After a reboot, guests on autostart run: one that was adopted, and one that nothing had laid out."""
    with (
        defined(host, "adopted", domain("adopted", TWO_NICS), UPSTREAM),
        defined(host, "late", domain("late", nic(4) + nic(5)), UPSTREAM),
    ):
        host.run("papr-hook", "adopt", "--yes", "adopted")
        assert complies(host, "adopted")
        assert not complies(host, "late")
        for name in ("adopted", "late"):
            host.run("virsh", "-q", "-c", UPSTREAM, "autostart", name)
        host.reboot()
        for name in ("adopted", "late"):
            wait_until(host, f"virsh -q domstate {name} | grep -q running")
            assert complies(host, name)


def test_the_removal(host: PowerHost) -> None:
    """Nothing of papr-hook is left, and libvirt answers at its own socket."""
    host.run(f"{CHECKOUT}/install.sh", "--uninstall")
    files = "/usr/bin/papr-hook /usr/share/papr-hook /etc/libvirt/hooks/qemu /run/libvirt/upstream"
    assert host.sh(f"ls -d {files} /usr/lib/systemd/system/papr-hook*", check=False).stdout == ""
    assert host.virsh("uri").stdout.strip() == "qemu:///system"


def test_apparmor_denied_nothing(bare: PowerHost) -> None:
    """AppArmor recorded what it allowed and denied, and denied no access by papr-hook or to its files."""
    log = bare.sh("cat /var/log/audit/audit.log*").stdout
    assert 'apparmor="STATUS"' in log
    assert [line for line in log.splitlines() if "DENIED" in line and "papr" in line] == []
