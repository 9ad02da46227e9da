"""The POWER host: boot the emulated machine, run commands in it, and stop it.

QEMU 10 emulates the machine, from a root of Debian 13: QEMU 7.2 cannot emulate a host that does VFIO.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.harness.booted_host import PARTS
from tests.harness.startable import Startable
from tests.helpers.paths import PROJECT

from .agent import Agent, AgentError
from .image import LAST_CHARACTERS, PowerError, PowerImage

MACHINE = "pseries,cap-nested-hv=on,cap-ccf-assist=off,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-htm=off"
"""A machine whose Linux has /dev/kvm (QEMU docs/system/ppc/pseries.rst). TCG emulates none of what is off."""

CMDLINE = "root=/dev/vda rw console=hvc0 apparmor=1 security=apparmor"

CLOCK = ("-icount", "shift=1,sleep=on")
"""The host's clock counts instructions, so time-outs in it last as long on a busy machine."""

NODE_MIB = 2048
"""Memory of each of the host's two NUMA nodes, in MiB."""

NODE_OF_DOMAIN = {3: 1}
"""NUMA nodes of PHBs, by their PCI domains. The others are on node 0."""

BOOT_SECONDS = 900.0
COMMAND_SECONDS = 600.0
STOP_SECONDS = 20.0
PROBE_SECONDS = 10.0
POLL_SECONDS = 0.5

AGENT = "org.qemu.guest_agent.0"
SHARE = "/mnt/share"
"""Where the host sees the directory that it shares with the tests."""

CHECKOUT = "/srv/papr-hook"
"""Where the host has its copy of the project."""

ENTER = r"""
set -e
root=$1 directory=$2 image=$3
shift 3
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
for shared in "$directory" "$image"; do
    mkdir -p "/mnt/root$shared"
    mount --bind "$shared" "/mnt/root$shared"
done
mount --bind /dev /mnt/root/dev
exec setpriv --pdeathsig KILL chroot /mnt/root "$@"
"""
"""Runs a program of another root directory, which sees two directories under their own names.

The kernel kills the program with the process that started it.
"""


NICS: Mapping[str, str] = {
    "0001:00:01.0": "52:54:00:00:01:00",
    "0003:00:01.0": "52:54:00:00:03:00",
    "0003:00:01.1": "52:54:00:00:03:01",
}
"""MAC addresses of the NICs that tests pass through, by their addresses in the host.

Each PHB is an IOMMU group, so the two functions in PCI domain 3 are one PE.
"""


class PowerHost(Startable):
    """An emulated POWER host; a context manager that boots it and removes every trace of it."""

    def __init__(self, image: PowerImage, qemu_root: Path, directory: Path, boot_seconds: float = BOOT_SECONDS) -> None:
        """Prepare a host.

        Args:
            image: What it boots. The host writes to an overlay.
            qemu_root: The root directory of a Debian 13 with qemu-system-ppc.
            directory: A directory that does not exist, for the overlay, the console's log and the sockets.
            boot_seconds: How long it may take to boot.
        """
        self._image = image
        self._qemu_root = qemu_root
        self._directory = directory
        self._boot_seconds = boot_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._agent = Agent(directory / "agent.sock")
        self.share = directory / "share"
        """What is /mnt/share in the host."""

    def run(
        self, *argv: str, input: str = "", check: bool = True, timeout: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host, as root.

        Args:
            argv: The command and its arguments.
            input: Its standard input.
            check: Whether a status other than 0 is an error.
            timeout: Seconds after which it is killed.

        Returns:
            Its status and output.

        Raises:
            PowerError: The command fails or does not end. The message has its output or the console's last lines.
        """
        what = " ".join(argv)[:200]
        try:
            done = self._agent.execute(list(argv), input.encode(), timeout)
        except AgentError as error:
            raise PowerError(f"{what}: {error}\n{self.console()}") from None
        if check and done.returncode != 0:
            raise PowerError(f"{what}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def sh(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the host; see run()."""
        return self.run("sh", "-c", script, check=check)

    def virsh(self, *args: str, input: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run virsh in the host; see run()."""
        return self.run("virsh", "-q", "-c", "qemu:///system", *args, input=input, check=check)

    def write(self, path: str, text: str) -> None:
        """Write a file in the host, and make its directory."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, input=text)

    def copy_project(self) -> None:
        """Copy what an installation needs of the project into the host."""
        archive = self.share / "project.tar"
        pack = ["tar", "-C", str(PROJECT), "--exclude=__pycache__", "-cf", str(archive), *PARTS]
        subprocess.run(pack, check=True)
        self.sh(f"rm -rf {CHECKOUT}; mkdir {CHECKOUT}; tar -C {CHECKOUT} -xf {SHARE}/{archive.name}")

    def reboot(self) -> None:
        """Reboot the host as its administrator does, and wait until it is up again."""
        before = self._boot_id()
        self.run("systemctl", "reboot", check=False)
        self._wait_until_running("does not reboot", before)

    def console(self) -> str:
        """Return the last lines of the host's console."""
        log = self._directory / "console.log"
        return log.read_text(errors="replace")[-LAST_CHARACTERS:] if log.exists() else "(no console)"

    def start(self) -> None:
        """Boot the host. Raises PowerError if it does not boot."""
        self._start_machine()
        self._wait_until_running("does not boot")

    def stop(self) -> None:
        """End the host with all its processes and delete its files. Doing it twice is harmless."""
        self._agent.close()
        process, self._process = self._process, None
        if process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
                    break
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start_machine(self) -> None:
        """Start the emulated machine."""
        self.share.mkdir(parents=True)
        overlay = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self._image.disk)]
        subprocess.run(["qemu-img", *overlay, str(self._directory / "overlay.qcow2")], check=True)
        places = [str(self._qemu_root), str(self._directory), str(self._image.disk.parent)]
        with open(self._directory / "qemu.log", "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation=private"]
                + ["bash", "-c", ENTER, "bash", *places, *self._qemu()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _qemu(self) -> list[str]:
        """Return QEMU's command line."""
        here = self._directory
        argv = ["qemu-system-ppc64", "-nodefaults", "-display", "none", "-accel", "tcg,tb-size=1024", *CLOCK]
        argv += ["-machine", MACHINE, "-cpu", "power9", "-smp", "2", "-m", str(2 * NODE_MIB)]
        for node in (0, 1):
            argv += ["-object", f"memory-backend-ram,id=m{node},size={NODE_MIB}M"]
            argv += ["-numa", f"node,nodeid={node},memdev=m{node},cpus={node}"]
        argv += ["-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd), "-append", CMDLINE]
        argv += ["-chardev", f"file,id=console,path={here}/console.log", "-device", "spapr-vty,chardev=console"]
        argv += ["-chardev", f"socket,id=agent,path={here}/agent.sock,server=on,wait=off"]
        argv += ["-device", "virtio-serial-pci,addr=4", "-device", f"virtserialport,chardev=agent,name={AGENT}"]
        argv += ["-drive", f"if=none,id=disk,file={here}/overlay.qcow2,format=qcow2,cache=unsafe"]
        argv += ["-device", "virtio-blk-pci,drive=disk,addr=1"]
        argv += ["-fsdev", f"local,id=share,path={self.share},security_model=none"]
        argv += ["-device", "virtio-9p-pci,fsdev=share,mount_tag=share,addr=2", "-device", "virtio-rng-pci,addr=3"]
        for domain in sorted({int(address[:4], 16) for address in NICS}):
            node = NODE_OF_DOMAIN.get(domain, 0)
            argv += ["-device", f"spapr-pci-host-bridge,index={domain},id=pci.{domain},numa_node={node}"]
        for number, (address, mac) in enumerate(NICS.items()):
            place = f"bus=pci.{int(address[:4], 16)}.0,addr={address[8:]},multifunction=on"
            # They are on one wire that leads nowhere else.
            argv += ["-netdev", f"hubport,id=n{number},hubid=0"]
            argv += ["-device", f"e1000e,{place},mac={mac},netdev=n{number}"]
        return argv

    def _boot_id(self) -> str:
        """Return what identifies the host's boot (random(4))."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id", timeout=PROBE_SECONDS).stdout

    def _wait_until_running(self, failure: str, before: str = "") -> None:
        """Wait until a boot other than an earlier one is complete.

        Raises:
            PowerError: The time is over, or QEMU has ended. The message has the console's last lines.
        """
        deadline = time.monotonic() + self._boot_seconds
        while not self._is_running(before):
            if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                log = (self._directory / "qemu.log").read_text(errors="replace")
                raise PowerError(f"the POWER host {failure}\n{log}{self.console()}")
            time.sleep(POLL_SECONDS)

    def _is_running(self, before: str) -> bool:
        if not self._agent.answers(PROBE_SECONDS):
            return False
        with contextlib.suppress(PowerError):
            if self._boot_id() != before:
                done = self.run("systemctl", "is-system-running", check=False, timeout=PROBE_SECONDS)
                return done.stdout.strip() in ("running", "degraded")
        return False
