"""A pseries guest for the tests: a Debian ppc64el kernel and a small initramfs that reports its PCI devices.

The guest prints an inventory on its console when it is up, and again whenever its PCI devices change. It also runs
the commands that the console gets. libvirt keeps the console's output in a file, which is what a test reads;
domain() writes a definition that does so.

Hotplug in a pseries guest takes more than a kernel: rtas_errd gets the firmware's event and has drmgr add or remove
the slot. Both are in the initramfs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from .libvirt_host import Host

__all__ = [
    "Device",
    "GuestError",
    "Image",
    "Inventory",
    "Phb",
    "build",
    "command",
    "domain",
    "parse_inventory",
    "wait_for",
]

RELEASE: Final = "bookworm"
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
KERNEL_PACKAGE: Final = "linux-image-powerpc64le"

# The programs, and the packages with the libraries that they are linked with.
PACKAGES: Final = (
    "busybox-static",
    "ppc64-diag",
    "powerpc-ibm-utils",
    "libc6",
    "libnuma1",
    "librtas2",
    "librtasevent2",
    "libservicelog-1.1-1",
    "libsqlite3-0",
)

# Where the packages have them; the guest has them under the same name.
PROGRAMS: Final = ("bin/busybox", "usr/sbin/rtas_errd", "usr/sbin/drmgr")
LIBRARIES: Final = (
    "ld64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libnuma.so.1",
    "librtas.so.2",
    "librtasevent.so.2",
    "libservicelog-1.1.so.1",
    "libsqlite3.so.0",
)

# Drivers of what QEMU emulates, and the kernel's side of PCI hotplug. What they need is found by build().
MODULES: Final = (
    "rpaphp",
    "rpadlpar_io",
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_balloon",
    "virtio_rng",
    "virtio_console",
    "e1000e",
    "e1000",
    "nvme",
    "ahci",
    "xhci_pci",
)

INIT: Final = r"""#!/bin/busybox sh
# The guest's only program: report the PCI devices, and obey the console.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /usr/bin /var/log
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
ln -sf /run/lock /var/lock
exec </dev/hvc0 >/dev/hvc0 2>&1
stty -echo -onlcr

while read -r module; do
    insmod "/modules/$module" || echo "papr-problem insmod $module"
done </modules/order

# Whoever hotplugs before rtas_errd listens is heard once it does: the kernel keeps the events.
rtas_errd || echo "papr-problem rtas_errd"

# value FILE: sets $value to the first line of FILE, or to -.
value() {
    value=-
    [ ! -e "$1" ] || read -r value <"$1"
}

# cells NODE: sets $cells to the hexadecimal digits of a node's ibm,pci-config-space-type, or to -.
cells() {
    cells=-
    [ ! -e "$1/ibm,pci-config-space-type" ] || cells=$(od -An -tx1 "$1/ibm,pci-config-space-type" | tr -d ' \n')
}

# link PATH: sets $link to the last part of a symbolic link's target, or to -.
link() {
    link=-
    if [ -L "$1" ]; then
        link=$(readlink "$1")
        link=${link##*/}
    fi
}

# Everything that makes a new inventory worth while; the shell needs no process to find out.
state() {
    state=$(echo /sys/class/pci_bus/*:00 /sys/bus/pci/devices/* /sys/bus/pci/devices/*/driver \
        /sys/bus/pci/devices/*/net/* /sys/bus/pci/devices/*/virtio*/driver \
        /sys/bus/pci/devices/*/virtio*/net/* /sys/bus/pci/devices/*/virtio*/block/*)
}

phb() {
    cells "$1/of_node"
    bus=${1##*/}
    echo "phb domain=${bus%:*} config_space_type=$cells"
    lines=$((lines + 1))
}

device() {
    line="address=${1##*/}"
    for name in vendor device class numa_node; do
        value "$1/$name"
        line="$line $name=${value#0x}"
    done
    for name in driver iommu_group; do
        link "$1/$name"
        line="$line $name=$link"
    done
    cells "$1/of_node"
    line="$line config_space_type=$cells config_size=$(wc -c <"$1/config")"
    disk=-
    for path in "$1"/virtio*/block/*; do
        [ ! -e "$path" ] || disk=${path##*/}
    done
    mac=-
    for path in "$1"/net/*/address "$1"/virtio*/net/*/address; do
        [ ! -e "$path" ] || { value "$path"; mac=$value; }
    done
    echo "device $line disk=$disk mac=$mac"
    lines=$((lines + 1))
}

inventory() {
    count=$((count + 1))
    lines=0
    echo "papr-inventory begin $count"
    for path in /sys/class/pci_bus/*:00; do
        [ ! -e "$path" ] || phb "$path"
    done
    for path in /sys/bus/pci/devices/*; do
        [ ! -e "$path" ] || device "$path"
    done
    echo "papr-inventory end $count $lines"
}

# What the kernel printed last may not have ended its line.
echo
count=0
printed=
while true; do
    state
    if [ "$state" != "$printed" ]; then
        printed=$state
        inventory
    fi
    # The shell forgets what it has of a line when the time is over: so only its first character may be late.
    if read -r -t 1 -n 1 first; then
        read -r typed
        typed=$first$typed
        echo "papr-answer begin"
        (eval "$typed") </dev/null 2>&1
        echo "papr-answer end $?"
    fi
done
"""

SCRIPTS: Final = {
    "init": INIT,
    # drmgr loads rpadlpar_io by itself, through a shell; it is loaded already.
    "sbin/modprobe": "#!/bin/busybox sh\nexit 0\n",
    # What the kernel runs when libvirt asks for a shutdown; busybox would ask an init that is not there.
    "sbin/poweroff": "#!/bin/busybox sh\nexec /bin/busybox poweroff -f\n",
}

# The kernel's own messages would break into the inventory's lines.
CMDLINE: Final = "console=hvc0 quiet loglevel=1 panic=-1"

POLL: Final = 0.1  # seconds


class GuestError(Exception):
    """The guest's parts could not be had, or the guest did not do what was waited for."""


@dataclass(frozen=True)
class Image:
    """What a guest boots."""

    kernel: Path
    initrd: Path
    cmdline: str = CMDLINE


@dataclass(frozen=True)
class Phb:
    """A PCI host bridge as the guest sees it.

    Attributes:
        domain: the PCI domain.
        config_space_type: the node's ibm,pci-config-space-type; None without one.
    """

    domain: int
    config_space_type: int | None


@dataclass(frozen=True)
class Device:
    """A PCI device as the guest sees it.

    Attributes:
        address: domain:bus:device.function, as «0001:00:01.0».
        vendor: the vendor's number.
        device: the device's number.
        class_code: the class, three bytes.
        driver: the driver that is bound; None without one.
        iommu_group: the number of the IOMMU group; None without one.
        config_size: the size of the configuration space in bytes.
        numa_node: the NUMA node, -1 for none.
        config_space_type: the node's ibm,pci-config-space-type; None without one.
        disk: the name of a virtio disk, as «vda»; None for anything else.
        mac: the MAC address of a NIC, lower case; None for anything else.
    """

    address: str
    vendor: int
    device: int
    class_code: int
    driver: str | None
    iommu_group: int | None
    config_size: int
    numa_node: int
    config_space_type: int | None
    disk: str | None
    mac: str | None

    @property
    def domain(self) -> int:
        """The PCI domain, which is the index of the vPHB."""
        return int(self.address.split(":")[0], 16)


@dataclass(frozen=True)
class Inventory:
    """One report of a guest.

    Attributes:
        number: how many the guest has printed since it booted, with this one.
        phbs: its PCI host bridges, in the order of their domains.
        devices: its PCI devices, in the order of their addresses.
    """

    number: int
    phbs: tuple[Phb, ...]
    devices: tuple[Device, ...]

    def by_mac(self, mac: str) -> Device | None:
        """Return the NIC with that MAC address, given in lower case, or None."""
        return next((device for device in self.devices if device.mac == mac), None)

    def by_disk(self, disk: str) -> Device | None:
        """Return the virtio disk with that name, as «vda», or None."""
        return next((device for device in self.devices if device.disk == disk), None)

    def in_domain(self, number: int) -> tuple[Device, ...]:
        """Return the devices in a PCI domain."""
        return tuple(device for device in self.devices if device.domain == number)


def build(directory: Path) -> Image:
    """Build the guest's kernel and initramfs, or find them built.

    Takes some 10 s and 60 MB from Debian's mirror, whichever the machine's own apt uses. Several callers may use
    the same directory at the same time.

    Args:
        directory: where to keep them; it is made where missing.

    Returns:
        The image, below that directory.

    Raises:
        GuestError: the machine's apt knows no Debian mirror, a package could not be fetched or unpacked, or has not
            what it should have.
    """
    final = directory / f"guest-{_recipe()}"
    image = Image(final / "vmlinux", final / "initrd")
    if final.is_dir():
        return image
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=directory) as name:
        _build(Path(name))
        # Another one may have been faster: its image is as good, and a directory does not replace a full one.
        try:
            (Path(name) / "image").rename(final)
        except OSError:
            if not final.is_dir():
                raise
    return image


def domain(
    name: str,
    image: Image,
    console: Path,
    devices: str,
    *,
    memory: int = 512,
    virt: str = "qemu",
    extra: str = "",
) -> str:
    """Return the definition of a domain that boots the image and has its console in a file.

    Args:
        name: its name.
        image: what it boots.
        console: the file that gets the console's output, to which each boot appends. A guest that migrates goes on
            appending to it from the other host.
        devices: the XML of the PCI controllers and devices. There is no USB controller and no memballoon unless it
            has them, but what else libvirt adds by itself it adds.
        memory: MiB.
        virt: the domain type.
        extra: XML to put before <devices>, as <metadata>.

    Returns:
        The XML.
    """
    parts = [devices]
    if "<memballoon" not in devices:
        parts.append("<memballoon model='none'/>")
    if not re.search(r"""type=['"]usb['"]""", devices):
        parts.append("<controller type='usb' index='0' model='none'/>")
    return f"""\
<domain type={quoteattr(virt)}>
  <name>{escape(name)}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='ppc64' machine='pseries'>hvm</type>
    <kernel>{escape(str(image.kernel))}</kernel>
    <initrd>{escape(str(image.initrd))}</initrd>
    <cmdline>{escape(image.cmdline)}</cmdline>
  </os>
  <features><htm state='off'/></features>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  {extra}
  <devices>
    {_indent(parts)}
    <serial type='unix'>
      <source mode='bind' path={quoteattr(_socket(name))}/>
      <log file={quoteattr(str(console))} append='on'/>
    </serial>
  </devices>
</domain>
"""


def command(host: Host, name: str, text: str, timeout: float = 60.0) -> str:
    """Run a shell command in a running guest, and return what it printed.

    Args:
        host: where it runs.
        name: the domain's name.
        text: the command, one line.
        timeout: seconds.

    Returns:
        Its standard output and error, as text.

    Raises:
        GuestError: the command failed, or the guest did not answer in time.
        OSError: the guest does not run.
    """
    deadline = time.monotonic() + timeout
    seen = ""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(timeout)
        line.connect(str(host.outside(_socket(name))))
        line.sendall(text.encode() + b"\n")
        while True:
            found = re.search(r"^papr-answer begin\r?\n(.*?)^papr-answer end (\d+)", seen, re.DOTALL | re.MULTILINE)
            if found:
                break
            seen += _receive(line, deadline, text)
    if found[2] != "0":
        raise GuestError(f"{text}: status {found[2]}\n{found[1]}")
    return found[1].replace("\r\n", "\n")


def parse_inventory(text: str) -> Inventory | None:
    """Return the last complete inventory in a console's output.

    Args:
        text: the output; it may end anywhere.

    Returns:
        The inventory; None when there is none. One whose lines do not add up to what its end says is none.
    """
    pattern = r"^papr-inventory begin (\d+)\n(.*?)^papr-inventory end \1 (\d+)$"
    found = re.findall(pattern, text.replace("\r", ""), re.DOTALL | re.MULTILINE)
    for number, body, lines in reversed(found):
        inventory = _inventory(int(number), body.splitlines())
        if len(inventory.phbs) + len(inventory.devices) == int(lines):
            return inventory
    return None


def wait_for(
    console: Path, wanted: Callable[[Inventory], bool] = lambda inventory: True, timeout: float = 120.0
) -> Inventory:
    """Wait until a guest's last inventory is the wanted one.

    Args:
        console: the console's file.
        wanted: says whether it is; any inventory is wanted when this is missing.
        timeout: seconds.

    Returns:
        The inventory.

    Raises:
        GuestError: there was none in time; with the end of the console's output.
    """
    deadline = time.monotonic() + timeout
    while True:
        text = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
        inventory = parse_inventory(text)
        if inventory is not None and wanted(inventory):
            return inventory
        if time.monotonic() > deadline:
            raise GuestError(f"no such inventory in {timeout:.0f} s; the console ends with\n{text[-3000:]}")
        time.sleep(POLL)


def _socket(name: str) -> str:
    """Return the socket that leads to a domain's console, as seen inside its host.

    It is where no other host has it: after a migration the emulator that ends removes the file that it listened on.
    """
    return f"/run/{name}.console"


def _indent(parts: Sequence[str]) -> str:
    """Join XML fragments as lines below <devices>."""
    return "\n    ".join(line for part in parts for line in part.strip().splitlines())


def _receive(line: socket.socket, deadline: float, text: str) -> str:
    """Return more of the console's output.

    Raises:
        GuestError: the time is up, or the guest is gone.
    """
    try:
        line.settimeout(max(0.01, deadline - time.monotonic()))
        data = line.recv(65536)
    except socket.timeout:
        raise GuestError(f"{text}: no answer in time") from None
    if not data:
        raise GuestError(f"{text}: the guest is gone")
    return data.decode("utf-8", "replace")


def _inventory(number: int, lines: Sequence[str]) -> Inventory:
    """Make an inventory of its lines, passing over what is not one."""
    phbs: list[Phb] = []
    devices: list[Device] = []
    for line in lines:
        kind, _, rest = line.partition(" ")
        fields = dict(field.partition("=")[::2] for field in rest.split())
        try:
            if kind == "phb":
                phbs.append(_phb(fields))
            elif kind == "device":
                devices.append(_device(fields))
        except (KeyError, ValueError):
            continue
    phbs.sort(key=lambda phb: phb.domain)
    return Inventory(number, tuple(phbs), tuple(devices))


def _phb(fields: dict[str, str]) -> Phb:
    """Make a PHB of its line's fields."""
    return Phb(int(fields["domain"], 16), _hex(fields["config_space_type"]))


def _device(fields: dict[str, str]) -> Device:
    """Make a device of its line's fields."""
    group = fields["iommu_group"]
    return Device(
        address=fields["address"],
        vendor=int(fields["vendor"], 16),
        device=int(fields["device"], 16),
        class_code=int(fields["class"], 16),
        driver=_text(fields["driver"]),
        iommu_group=None if group == "-" else int(group),
        config_size=int(fields["config_size"]),
        numa_node=int(fields["numa_node"]),
        config_space_type=_hex(fields["config_space_type"]),
        disk=_text(fields["disk"]),
        mac=_text(fields["mac"]),
    )


def _text(value: str) -> str | None:
    """Return a field, None for the sign of absence."""
    return None if value == "-" else value


def _hex(value: str) -> int | None:
    """Return a field of hexadecimal digits as a number, None for the sign of absence."""
    return None if value == "-" else int(value, 16)


def _recipe() -> str:
    """Return a digest of all that the image is made from, so that an old one is not taken for it."""
    parts = [RELEASE, KERNEL_PACKAGE, *SCRIPTS, *SCRIPTS.values(), *PACKAGES, *PROGRAMS, *LIBRARIES, *MODULES]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _build(work: Path) -> None:
    """Make work/image with both files."""
    unpacked = work / "unpacked"
    _fetch(work / "apt", unpacked)
    image = work / "image"
    image.mkdir()
    kernels = sorted((unpacked / "boot").glob("vmlinux-*"))
    if len(kernels) != 1:
        raise GuestError(f"not one kernel in {KERNEL_PACKAGE}: {kernels}")
    shutil.copyfile(kernels[0], image / "vmlinux")
    tree = work / "tree"
    _fill(tree, unpacked)
    _pack(tree, image / "initrd")


def _fetch(apt: Path, unpacked: Path) -> None:
    """Download the packages and unpack them into one tree."""
    unpacked.mkdir()
    options = _apt_options(apt)
    _output(["apt-get", *options, "-q", "update"], apt)
    packages = [_kernel_package(options, apt), *PACKAGES]
    _output(["apt-get", *options, "-q", "download", *packages], apt)
    for package in sorted(apt.glob("*.deb")):
        _output(["dpkg", "-x", str(package), str(unpacked)], apt)


def _output(argv: Sequence[str], directory: Path) -> str:
    """Run a command in a directory and return its output.

    Raises:
        GuestError: it failed; with what it said.
    """
    done = subprocess.run(argv, capture_output=True, text=True, cwd=directory, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        raise GuestError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _apt_options(apt: Path) -> list[str]:
    """Return apt's options for the guest's architecture, with lists and state of its own in a new directory."""
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    sources = apt / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {mirror()} {RELEASE} main\n", encoding="utf-8")
    config = {
        "APT::Architecture": "ppc64el",
        "APT::Architectures::": "ppc64el",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": apt / "parts",
    }
    return [part for name, value in config.items() for part in ("-o", f"{name}={value}")]


def mirror() -> str:
    """Return the address of the Debian mirror that the machine's own apt uses."""
    form = "$(ORIGIN)|$(RELEASE)|$(REPO_URI)"
    argv = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    for line in _output(argv, Path("/")).splitlines():
        origin, release, address = line.split("|")
        # Updates and security fixes are elsewhere or lack most packages.
        if origin == "Debian" and "-" not in release:
            return address
    raise GuestError("the machine's apt has no Debian mirror, or did not fetch its lists yet")


def _kernel_package(options: Sequence[str], apt: Path) -> str:
    """Return the package that the kernel's meta package stands for."""
    text = _output(["apt-cache", *options, "depends", KERNEL_PACKAGE], apt)
    found = re.search(r"Depends: (linux-image-\S+)", text)
    if found is None:
        raise GuestError(f"{KERNEL_PACKAGE} names no kernel")
    return found[1]


def _fill(tree: Path, unpacked: Path) -> None:
    """Make the initramfs's tree."""
    for name in PROGRAMS:
        _copy(unpacked / name, tree / name)
    for name in LIBRARIES:
        _copy(_library(unpacked, name), tree / "lib64" / name)
    # The loader's own search path has the distribution's directory first, which the guest has not.
    (tree / "lib").symlink_to("lib64")
    for name, text in SCRIPTS.items():
        _script(tree / name, text)
    order = _modules(unpacked)
    for path in order:
        _copy(path, tree / "modules" / path.name)
    (tree / "modules" / "order").write_text("".join(f"{path.name}\n" for path in order), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    """Copy a file, following symbolic links, with its mode and to a directory that need not be there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _script(path: Path, text: str) -> None:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(stat.S_IRWXU)


def _library(unpacked: Path, name: str) -> Path:
    """Find a library by its name in the packages' tree."""
    for directory in ("lib", "usr/lib"):
        path = unpacked / directory / "powerpc64le-linux-gnu" / name
        if path.exists():
            return path
    raise GuestError(f"no {name} in the packages")


def _modules(unpacked: Path) -> list[Path]:
    """Return the modules' files, each after those that it needs. What is built into the kernel is not among them."""
    files = {_canonical(path.stem): path for path in unpacked.glob("lib/modules/*/kernel/**/*.ko")}
    builtin = {
        _canonical(Path(line).stem)
        for path in unpacked.glob("lib/modules/*/modules.builtin")
        for line in path.read_text(encoding="utf-8").splitlines()
    }
    done: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in done or name in builtin:
            return
        if name not in files:
            raise GuestError(f"no module {name} in the kernel's package")
        for needed in _needs(files[name]):
            add(needed)
        done[name] = files[name]

    for name in MODULES:
        add(name)
    return list(done.values())


def _canonical(name: str) -> str:
    """Return a module's name with underscores; its file may have hyphens."""
    return name.replace("-", "_")


def _needs(module: Path) -> list[str]:
    """Return the names of the modules that one needs, which its file says in a string «depends=a,b»."""
    found = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    return [_canonical(name) for name in found[1].decode().split(",") if name] if found else []


def _pack(tree: Path, initrd: Path) -> None:
    """Pack the tree into an initramfs. It is not compressed: emulated, unpacking costs more than reading."""
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    with initrd.open("wb") as out:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc", "-R", "+0:+0"],
            input="".join(f"{name}\n" for name in names).encode(),
            stdout=out,
            check=True,
            cwd=tree,
            env={**os.environ, "LC_ALL": "C"},
        )
