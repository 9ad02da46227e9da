"""Show a PC-shaped guest before and after papr-hook, as libvirt and as the guest's Linux see it.

Each command that is shown was run, and its output is shown unchanged. The guest's Linux reports its devices.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from tests.harness import guest, guest_image
from tests.harness.guest_image import Image
from tests.harness.guest_inventory import Device, Inventory
from tests.harness.libvirt_host import Host

from . import guests
from .console import Console

__all__ = ["Scenario", "DemoError"]

NAME = "sample"
SECOND = "second"
PROJECT = Path(__file__).resolve().parents[1]

KINDS = {
    (0x1AF4, 0x1000): "virtio NIC",
    (0x1AF4, 0x1041): "virtio NIC",
    (0x1AF4, 0x1001): "virtio disk",
    (0x1AF4, 0x1042): "virtio disk",
    (0x1AF4, 0x1002): "memory balloon",
    (0x1AF4, 0x1045): "memory balloon",
    (0x1AF4, 0x1005): "random numbers",
    (0x1AF4, 0x1044): "random numbers",
    (0x8086, 0x10D3): "e1000e NIC",
    (0x8086, 0x25AB): "watchdog",
    (0x1B36, 0x000D): "USB controller",
    (0x1B36, 0x0001): "PCI bridge",
}
"""QEMU's emulated devices by their vendors' and devices' numbers."""


SCRIPT = """\
#!/bin/sh
case $1 in
start) exec libvirtd -d -p /run/libvirt/libvirtd.pid ;;
stop) exec start-stop-daemon --stop --quiet --oknodo --retry 30 --pidfile /run/libvirt/libvirtd.pid ;;
esac
"""
"""How the throwaway host starts and stops its libvirtd, since it has no systemd."""


class DemoError(Exception):
    """The guest or libvirt did not do what the demonstration shows."""


class Scenario:
    """The steps in order, on one host. demo/run prints the first and the last one."""

    def __init__(self, directory: Path, console: Console) -> None:
        """Keep the host, the guest's files and its console below a directory with a short path."""
        self._directory = directory
        self._console = console
        self._host = Host(directory, "demo")
        self._guest_console = directory / "console"

    def run(self) -> None:
        """Show all steps.

        Raises:
            DemoError, GuestError, HostError, CalledProcessError: a step failed.
        """
        console = self._console
        with console.waiting("fetching a kernel for POWER, and building what the guest boots"):
            image = guest_image.build(self._directory / "image")
        disk = self._directory / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
        with console.waiting("starting libvirtd"):
            self._host.start()
        self._host.write("/etc/init.d/libvirtd", SCRIPT, 0o755)
        try:
            self._show_host(image)
            self._refused_by_libvirt(image, disk)
            before = self._before(image, disk)
            self._install()
            self._defined_and_created(image, disk)
            after = self._after(before)
            self._hotplug(after)
            self._end()
        finally:
            self._host.stop()

    def _show_host(self, image: Image) -> None:
        versions = []
        for program in ("libvirtd", "qemu-system-ppc64"):
            found = re.search(r"\d+\.\d+\.\d+", self._host.run([program, "--version"]).stdout)
            versions.append(found[0] if found else "?")
        size = (image.kernel.stat().st_size + image.initrd.stat().st_size) >> 20
        self._console.say(f"libvirt {versions[0]} runs, with QEMU {versions[1]}; built a Linux for POWER ({size} MiB)")

    def _refused_by_libvirt(self, image: Image, disk: Path) -> None:
        console = self._console
        console.step("What a tool for PCs writes")
        console.say(
            "A template that was made for PCs gives a guest PCI Express root ports, since a PC hotplugs into those, "
            "and a bridge for old devices. For a pseries guest, a POWER machine, that is wrong. libvirt says so:"
        )
        devices = guests.with_root_ports(disk)
        console.lines(devices.partition("<interface")[0])
        file = self._write("pc.xml", guest.domain(NAME, image, self._guest_console, devices))
        done = self._virsh("define", str(file), check=False)
        if "pcie-root-port" not in done.stderr:
            raise DemoError("libvirt did not refuse a pseries guest its root ports")

    def _before(self, image: Image, disk: Path) -> Inventory:
        console = self._console
        console.step("What libvirt accepts: everything on one host bridge")
        console.say(
            "So the tool leaves the root ports out. What remains is still a PC's shape: all devices on PCI bus 0, one "
            "of them behind a bridge. libvirt takes that, and would itself place them so."
        )
        file = self._write("sample.xml", guest.domain(NAME, image, self._guest_console, guests.pc_shaped(disk)))
        self._virsh("define", str(file))
        self._show_tree()
        self._virsh("start", NAME)
        with console.waiting("the guest boots"):
            before = guest.wait_for(self._guest_console)
        console.say("Its Linux has booted, and this is what it finds:")
        self._show_devices(before)
        domains, groups = _counts(before)
        console.say(
            f"{len(before.devices)} devices, {domains} PCI domain, {groups} IOMMU group{'s' if groups != 1 else ''}: "
            "what Linux cannot tell apart, it cannot isolate. One device that misbehaves, or one that is handed on "
            "to a process of the guest, takes all of its group with it."
        )
        self._virsh("destroy", NAME)
        return before

    def _install(self) -> None:
        console = self._console
        console.step("papr-hook is installed")
        done = self._host.run([str(PROJECT / "install.sh")], check=False)
        console.ran("./install.sh", done.stdout + done.stderr)
        if done.returncode != 0:
            raise DemoError("install.sh failed")

    def _defined_and_created(self, image: Image, disk: Path) -> None:
        console = self._console
        console.step("The same tool, the same definition, another layout")
        console.say(
            "papr-hook's gateway stands where libvirt's socket was. virsh and every other client talk to libvirt "
            "through it, without knowing, and a definition is laid out on its way. The tool defines a second guest:"
        )
        xml = guest.domain(SECOND, image, self._directory / "second", guests.pc_shaped(disk))
        file = self._write("second.xml", xml)
        for command, end in (("define", "undefine"), ("create", "destroy")):
            self._virsh(command, str(file), *(["--paused"] if command == "create" else []))
            found = self._papr_hook("check", "-c", "qemu:///system", SECOND)
            if found != "complies\n":
                raise DemoError(f"the gateway did not lay out what virsh {command} brought")
            self._virsh(end, SECOND)

    def _after(self, before: Inventory) -> Inventory:
        console = self._console
        console.step("The guest that was there starts, every device on a host bridge of its own")
        console.say("It was defined before papr-hook was there, so the gateway lays it out for this start:")
        self._virsh("start", NAME)
        console.say(
            "On POWER a guest has up to 31 PCI host bridges (PHBs, vPHBs as they are virtual). In the definition each "
            "is a pci-root; four of them are empty, for hotplug. The bridge is gone, since nothing needs it."
        )
        self._show_tree()
        with console.waiting("the guest boots"):
            after = guest.wait_for(self._guest_console, lambda seen: len(seen.phbs) > 1)
        console.say("The guest agrees. This is its Linux again, not papr-hook:")
        self._show_devices(after)
        self._show_phbs(after)
        domains, groups = _counts(after)
        if domains != len(after.devices) or groups < domains:
            raise DemoError("the guest does not have one PCI domain and one IOMMU group for each device")
        console.say(
            f"{len(after.devices)} devices, {domains} PCI domains, {groups} IOMMU groups (before: "
            f"{' and '.join(str(count) for count in _counts(before))})."
        )
        return after

    def _hotplug(self, after: Inventory) -> None:
        console = self._console
        used = {device.domain for device in after.devices}
        console.step("A NIC is plugged into a spare host bridge, and out again")
        console.say("It names no address. The gateway gives it a host bridge that is empty:")
        xml = guests.nic(guests.HOTPLUGGED_MAC, "e1000e")
        file = self._write("nic.xml", xml)
        console.lines(xml)
        self._virsh("attach-device", NAME, str(file), "--live")
        began = time.monotonic()
        with console.waiting("the guest's kernel and its RTAS daemon add the device"):
            seen = guest.wait_for(self._guest_console, lambda seen: seen.by_mac(guests.HOTPLUGGED_MAC) is not None)
        added = seen.by_mac(guests.HOTPLUGGED_MAC)
        assert added is not None
        console.say(f"{time.monotonic() - began:.0f} s later the guest has it, in a domain and a group of its own:")
        self._show_devices(Inventory(seen.number, seen.phbs, (added,)))
        if added.domain in used:
            raise DemoError(f"the NIC is at {added.address}, next to something else")
        self._virsh("detach-device", NAME, str(file), "--live")
        with console.waiting("the guest lets it go"):
            seen = guest.wait_for(self._guest_console, lambda seen: seen.by_mac(guests.HOTPLUGGED_MAC) is None)
        console.say(
            f"The guest has let it go: {len(seen.devices)} devices, as before, and the host bridge is a spare again."
        )

    def _end(self) -> None:
        console = self._console
        console.step("papr-hook is uninstalled, and the host ends")
        self._virsh("destroy", NAME)
        done = self._host.run([str(PROJECT / "install.sh"), "--uninstall"])
        console.ran("./install.sh --uninstall", done.stdout)

    def _virsh(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run virsh, and show that; raises DemoError where it fails, with check."""
        done = self._host.run(["virsh", "-c", "qemu:///system", *args], check=False)
        failed = done.returncode != 0
        self._console.ran(f"virsh {' '.join(args)}", (done.stdout + done.stderr).strip(), "red" if failed else "")
        if failed and check:
            raise DemoError(f"virsh {args[0]} failed")
        return done

    def _write(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def _show_tree(self) -> None:
        """Show the definition as papr-hook draws it, from the checkout, since it may not be installed yet."""
        self._papr_hook("show", "-c", "qemu:///system", NAME)

    def _papr_hook(self, *args: str) -> str:
        module = ["env", f"PYTHONPATH={PROJECT}", "/usr/bin/python3", "-m", "papr_hook"]
        said = self._host.run([*module, *args]).stdout
        self._console.ran(f"papr-hook {' '.join(args)}", said)
        return said

    def _show_devices(self, seen: Inventory) -> None:
        head = ("address", "IOMMU group", "config space", "what")
        self._console.table(head, [_row(device) for device in seen.devices])

    def _show_phbs(self, seen: Inventory) -> None:
        kinds = sorted({str(phb.config_space_type) for phb in seen.phbs})
        self._console.say(
            f"Each of its {len(seen.phbs)} host bridges says ibm,pci-config-space-type = {' and '.join(kinds)} in the "
            "device tree: the extended config space of PCI Express, 4096 bytes, without any root port."
        )


def _counts(seen: Inventory) -> tuple[int, int]:
    """Return how many PCI domains and IOMMU groups the devices are in."""
    groups = {device.iommu_group for device in seen.devices if device.iommu_group is not None}
    return len({device.domain for device in seen.devices}), len(groups)


def _row(device: Device) -> tuple[str, str, str, str]:
    kind = KINDS.get((device.vendor, device.device), f"{device.vendor:04x}:{device.device:04x}")
    group = "none" if device.iommu_group is None else str(device.iommu_group)
    detail = device.disk or device.mac or ""
    return device.address, group, f"{device.config_size} bytes", f"{kind} {detail}".rstrip()
