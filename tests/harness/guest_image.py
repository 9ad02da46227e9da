"""Build what a test guest boots: a Debian ppc64el kernel and a small initramfs that reports its PCI devices.

Hotplug in a pseries guest needs user space: rtas_errd gets the firmware's event and runs drmgr, which adds or removes
the slot. Both programs are in the initramfs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["GuestError", "Image", "build", "mirror"]

RELEASE: Final = "bookworm"
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
KERNEL_PACKAGE: Final = "linux-image-powerpc64le"

# The packages with the programs, and with the libraries that they are linked to.
PACKAGES: Final = (
    "busybox-static",
    "ppc64-diag",
    "powerpc-ibm-utils",
    "qemu-guest-agent",
    "libc6",
    "libglib2.0-0",
    "libnuma1",
    "librtas2",
    "librtasevent2",
    "libservicelog-1.1-1",
    "libsqlite3-0",
    "udev",
    "libacl1",
    "libblkid1",
    "libcap2",
    "libkmod2",
    "liblzma5",
    "libpcre2-8-0",
    "libselinux1",
    "libssl3",
    "libudev1",
    "liburing2",
    "libzstd1",
)

# Paths in the packages, which are also the paths in the guest.
PROGRAMS: Final = ("bin/busybox", "bin/udevadm", "usr/sbin/rtas_errd", "usr/sbin/drmgr", "usr/sbin/qemu-ga")
LIBRARIES: Final = (
    "ld64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libglib-2.0.so.0",
    "libgmodule-2.0.so.0",
    "libnuma.so.1",
    "librtas.so.2",
    "librtasevent.so.2",
    "libservicelog-1.1.so.1",
    "libsqlite3.so.0",
    "libacl.so.1",
    "libblkid.so.1",
    "libcap.so.2",
    "libcrypto.so.3",
    "libkmod.so.2",
    "liblzma.so.5",
    "libpcre2-8.so.0",
    "libselinux.so.1",
    "libudev.so.1",
    "liburing.so.2",
    "libzstd.so.1",
)

# What udev names network interfaces by, at the same paths in the guest.
UDEV_FILES: Final = (
    "lib/systemd/network/99-default.link",
    "lib/udev/rules.d/75-net-description.rules",
    "lib/udev/rules.d/80-net-setup-link.rules",
)

# Drivers of QEMU's emulated devices, and PCI hotplug. build() adds the modules that these depend on.
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

INIT: Final = Path(__file__).with_name("guest-init").read_text(encoding="utf-8")
"""The guest's only program. It reports the PCI devices, and runs the commands that the console receives."""

SCRIPTS: Final = {
    "init": INIT,
    # drmgr runs modprobe rpadlpar_io through a shell, but init has loaded it.
    "sbin/modprobe": "#!/bin/busybox sh\nexit 0\n",
    # The kernel runs this when libvirt asks for a shutdown. busybox's poweroff without -f would signal an init.
    "sbin/poweroff": "#!/bin/busybox sh\nexec /bin/busybox poweroff -f\n",
}

# The kernel's own messages would break into the inventory's lines.
CMDLINE: Final = "console=hvc0 quiet loglevel=1 panic=-1"


class GuestError(Exception):
    """The image could not be built, or the guest did not do what the test waited for."""


@dataclass(frozen=True)
class Image:
    """The kernel, initramfs and kernel command line that a guest boots."""

    kernel: Path
    initrd: Path
    cmdline: str = CMDLINE


def build(directory: Path) -> Image:
    """Return the guest's kernel and initramfs, and build them if the directory lacks them.

    This takes 10 s, and downloads 60 MB from the Debian mirror that the machine's apt uses. Several callers may use
    one directory at the same time.

    Args:
        directory: keeps the files. It is created if it does not exist.

    Returns:
        The image, below that directory.

    Raises:
        GuestError: the machine's apt has no Debian mirror, or a package could not be fetched or unpacked, or lacks
            a file.
    """
    final = directory / f"guest-{_recipe()}"
    image = Image(final / "vmlinux", final / "initrd")
    if final.is_dir():
        return image
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=directory) as name:
        _build(Path(name))
        # Another process may have built the same image meanwhile: rename() does not replace a directory with files.
        try:
            (Path(name) / "image").rename(final)
        except OSError:
            if not final.is_dir():
                raise
    return image


def _recipe() -> str:
    """Return a digest of the image's ingredients, so that an outdated image is not used."""
    parts = [
        RELEASE,
        KERNEL_PACKAGE,
        *SCRIPTS,
        *SCRIPTS.values(),
        *PACKAGES,
        *PROGRAMS,
        *LIBRARIES,
        *UDEV_FILES,
        *MODULES,
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _build(work: Path) -> None:
    """Build both files in work/image."""
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
    """Download the packages, and unpack them into one directory."""
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
        GuestError: it failed. The text has its output.
    """
    done = subprocess.run(argv, capture_output=True, text=True, cwd=directory, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        raise GuestError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _apt_options(apt: Path) -> list[str]:
    """Return apt's options for the guest's architecture, with separate lists and state in a directory."""
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
        # The updates and security suites lack most packages.
        if origin == "Debian" and "-" not in release:
            return address
    raise GuestError("the machine's apt has no Debian mirror, or did not fetch its lists yet")


def _kernel_package(options: Sequence[str], apt: Path) -> str:
    """Return the package that the kernel's meta package depends on."""
    text = _output(["apt-cache", *options, "depends", KERNEL_PACKAGE], apt)
    found = re.search(r"Depends: (linux-image-\S+)", text)
    if found is None:
        raise GuestError(f"{KERNEL_PACKAGE} names no kernel")
    return found[1]


def _fill(tree: Path, unpacked: Path) -> None:
    """Fill the initramfs's directory tree."""
    for name in PROGRAMS:
        _copy(unpacked / name, tree / name)
    for name in LIBRARIES:
        _copy(_library(unpacked, name), tree / "lib64" / name)
    # The loader first searches the distribution's library directory, which does not exist in the guest.
    (tree / "lib").symlink_to("lib64")
    for name in UDEV_FILES:
        _copy(unpacked / name, tree / name)
    for name, text in SCRIPTS.items():
        _script(tree / name, text)
    order = _modules(unpacked)
    for path in order:
        _copy(path, tree / "modules" / path.name)
    (tree / "modules" / "order").write_text("".join(f"{path.name}\n" for path in order), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its mode, following symbolic links, and create the target's directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _script(path: Path, text: str) -> None:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(stat.S_IRWXU)


def _library(unpacked: Path, name: str) -> Path:
    """Return the path of a library in the unpacked packages."""
    for directory in ("lib", "usr/lib"):
        path = unpacked / directory / "powerpc64le-linux-gnu" / name
        if path.exists():
            return path
    raise GuestError(f"no {name} in the packages")


def _modules(unpacked: Path) -> list[Path]:
    """Return the modules' files, each after its dependencies, without those that are built into the kernel."""
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
    """Return a module's name with underscores: file names may have hyphens."""
    return name.replace("-", "_")


def _needs(module: Path) -> list[str]:
    """Return the names of a module's dependencies, which its file lists in a string "depends=a,b"."""
    found = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    return [_canonical(name) for name in found[1].decode().split(",") if name] if found else []


def _pack(tree: Path, initrd: Path) -> None:
    """Pack the tree into an initramfs, uncompressed: under emulation, unpacking takes longer than reading."""
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
