"""Build the disk, kernel and initrd of the POWER host: a Debian 12 for ppc64el with the backports' libvirt and QEMU.

The build runs ppc64el programs by QEMU's user emulation. The registration of that emulator is in the binfmt_misc of a
user namespace (Linux 6.7 and later): the machine's own binfmt_misc is neither mounted nor changed. The processes of
the build are in a PID namespace and end with this process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.harness.guest_image import KEYRING, mirror

OVERLAY = Path(__file__).with_name("overlay")
"""Files of the host that no package has."""

RELEASE = "bookworm"
BACKPORTS = "src:linux* src:libvirt src:libvirt-python src:qemu src:ipxe src:seabios"
"""Sources that the host has from bookworm-backports: QEMU 7.2 cannot do VFIO there."""

PACKAGES = (
    "linux-image-powerpc64le-64k", "initramfs-tools", "systemd-sysv", "dbus", "udev", "kmod", "util-linux",
    "qemu-guest-agent", "libvirt-daemon-system", "libvirt-clients", "libvirt-daemon-driver-qemu",
    "qemu-system-ppc", "qemu-utils", "ipxe-qemu", "apparmor", "auditd", "polkitd",
    "python3", "python3-lxml", "python3-libvirt", "python3-rich", "iproute2", "procps",
)  # fmt: skip

MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "getty@tty1.service", "serial-getty@hvc0.service",
    "systemd-networkd-wait-online.service",
)  # fmt: skip
"""Units that only take time."""

EXCLUDED = ("doc", "man", "locale", "info")
"""Directories of /usr/share that the host does not need."""

EMULATOR = "qemu-ppc64le-static"
MAGIC = (
    rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x15\x00",
    rb"\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\x00",
)
"""The first bytes of a ppc64le program, and the bits of them that count (QEMU scripts/qemu-binfmt-conf.sh)."""

DISK_SIZE = "3G"
LAST_CHARACTERS = 3000
"""How much of a log a message has."""

ENTER = r"""
set -eu
mkfifo "$1/unshared" "$1/mapped"
unshare --user --mount sh -c 'echo >"$1/unshared"; read -r _ <"$1/mapped"; exec bash "$1/bootstrap"' sh "$1" &
read -r _ <"$1/unshared"
echo '0 0 65536' >"/proc/$!/uid_map"
echo '0 0 65536' >"/proc/$!/gid_map"
echo >"$1/mapped"
wait "$!"
"""
"""Runs the bootstrap script as root of a user namespace whose ids are the machine's.

The shell there gets root's capabilities when it executes a program after the ids are mapped.
"""


class PowerError(Exception):
    """The POWER host could not be built, or did not do what a test waits for."""


@dataclass(frozen=True)
class PowerImage:
    """What the POWER host boots.

    Attributes:
        disk: A raw file system, which nobody changes.
        kernel: The kernel.
        initrd: The initramfs.
    """

    disk: Path
    kernel: Path
    initrd: Path


def build(directory: Path, release: str = RELEASE) -> PowerImage:
    """Build the image, or find it built.

    Args:
        directory: Where to keep the image, in a folder that is named for the image's ingredients. The build takes
            four minutes of CPU time and 2 GiB.
        release: The release of Debian.

    Returns:
        The image.

    Raises:
        PowerError: A step of the build fails. The message has the last lines of its output.
    """
    final = directory / f"power-{_recipe(release)}"
    if not final.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="power-", dir=directory) as name:
            scratch = Path(name)
            _build(scratch, release)
            (scratch / "image").rename(final)
    return PowerImage(final / "disk", final / "vmlinux", final / "initrd")


def _recipe(release: str) -> str:
    """Return a digest of the image's ingredients, so that an outdated image is not used."""
    files = sorted(path for path in OVERLAY.rglob("*") if path.is_file())
    parts = [_bootstrap_script(Path("SCRATCH"), release, "MIRROR").encode(), DISK_SIZE.encode()]
    for file in files:
        parts += [str(file.relative_to(OVERLAY)).encode(), file.read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _build(scratch: Path, release: str) -> None:
    """Build the image in scratch/image."""
    _unpack_emulator(scratch)
    shutil.copytree(OVERLAY, scratch / "overlay")
    (scratch / "bootstrap").write_text(_bootstrap_script(scratch, release, mirror()), encoding="utf-8")
    # The first process of a PID namespace takes the others with it.
    enter = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    _run([*enter, "bash", "-c", ENTER, "bash", str(scratch)], scratch)
    root, image = scratch / "root", scratch / "image"
    image.mkdir()
    kernel = sorted((root / "boot").glob("vmlinux-*"))[-1]
    shutil.copyfile(kernel, image / "vmlinux")
    shutil.copyfile(root / "boot" / kernel.name.replace("vmlinux-", "initrd.img-"), image / "initrd")
    options = ["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"]
    _run(["mke2fs", *options, "-d", str(root), str(image / "disk"), DISK_SIZE], scratch)


def _unpack_emulator(scratch: Path) -> None:
    """Download the package of the user emulation and unpack its one program. Nothing is installed."""
    folder = scratch / "package"
    folder.mkdir()
    _run(["apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", "qemu-user-static"], folder)
    _run(["dpkg", "-x", *map(str, folder.glob("*.deb")), str(folder)], folder)
    (folder / "usr/bin" / EMULATOR).rename(scratch / EMULATOR)
    shutil.rmtree(folder)


def _bootstrap_script(scratch: Path, release: str, mirror: str) -> str:
    """Return the script that makes the root directory, once it runs in the user namespace."""
    magic, mask = (text.decode() for text in MAGIC)
    source = f"deb [signed-by={KEYRING}] {mirror}"
    masked = " ".join(f'"$1/etc/systemd/system/{unit}"' for unit in MASKED)
    excluded = " ".join(f"--dpkgopt='path-exclude=/usr/share/{name}/*'" for name in EXCLUDED)
    pin = f"Package: {BACKPORTS}\\nPin: release n={release}-backports\\nPin-Priority: 990\\n"
    return f"""set -eu
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf '%s' ':ppc64le:M::{magic}:{mask}:{scratch}/{EMULATOR}:OCF' >/proc/sys/fs/binfmt_misc/register
# The initramfs is made once, in the end.
export INITRD=No
mmdebstrap --mode=root --variant=minbase --architectures=ppc64el --skip=check/qemu \\
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \\
    --dpkgopt=force-unsafe-io {excluded} --include={",".join(PACKAGES)} \\
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \\
    --setup-hook='mkdir -p "$1/etc/apt/preferences.d" && printf "{pin}" >"$1/etc/apt/preferences.d/backports"' \\
    --essential-hook='cp {scratch}/overlay/etc/kernel-img.conf "$1/etc/"' \\
    --customize-hook='cp -R {scratch}/overlay/. "$1/"; mkdir -p "$1/mnt/share"' \\
    --customize-hook='for unit in {masked}; do ln -sf /dev/null "$unit"; done' \\
    --customize-hook='chroot "$1" update-initramfs -c -k all' \\
    {release} {scratch}/root "{source} {release} main" "{source} {release}-backports main"
"""


def _run(argv: list[str], directory: Path) -> None:
    """Run a command in a directory, which also has its temporary files.

    Raises:
        PowerError: It fails. The message has the last lines of its output.
    """
    environment = {**os.environ, "TMPDIR": str(directory), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        argv,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise PowerError(f"the POWER host is not built: status {done.returncode}\n{done.stdout[-LAST_CHARACTERS:]}")
