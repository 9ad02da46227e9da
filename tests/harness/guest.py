"""Define a test guest, wait for its reports, and run commands in it.

The guest boots the image that guest_image.build() makes. It prints an inventory on its console once it is up, and
another one after each change of its PCI devices. It also runs the commands that its console receives. libvirt keeps
the console's output in a file, which the tests read.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from .guest_image import GuestError, Image
from .guest_inventory import Inventory, parse_inventory
from .libvirt_host import Host

__all__ = ["command", "domain", "wait_for"]

POLL: Final = 0.1  # seconds

DOMAIN: Final = """\
<domain type={virt}>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='ppc64' machine='pseries'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><htm state='off'/></features>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  {extra}
  <devices>
    {devices}
    <serial type='unix'>
      <source mode='bind' path={socket}/>
      <log file={console} append='on'/>
    </serial>
  </devices>
</domain>
"""


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
    """Return domain XML that boots the image and logs its console to a file.

    Args:
        name: its name.
        image: what it boots.
        console: the file for the console's output. Each boot appends to it, and so does another host
            after a migration.
        devices: the XML of the PCI controllers and devices. Without a USB controller or memballoon here, the guest has
            none. libvirt adds its other implicit devices.
        memory: MiB.
        virt: the domain type.
        extra: XML in front of <devices>, such as <metadata>.

    Returns:
        The XML.
    """
    parts = [devices]
    if "<memballoon" not in devices:
        parts.append("<memballoon model='none'/>")
    if not re.search(r"""type=['"]usb['"]""", devices):
        parts.append("<controller type='usb' index='0' model='none'/>")
    return DOMAIN.format(
        virt=quoteattr(virt),
        name=escape(name),
        memory=memory,
        kernel=escape(str(image.kernel)),
        initrd=escape(str(image.initrd)),
        cmdline=escape(image.cmdline),
        extra=extra,
        devices=_indent(parts),
        socket=quoteattr(_socket(name)),
        console=quoteattr(str(console)),
    )


def command(host: Host, name: str, text: str, timeout: float = 60.0) -> str:
    """Run a shell command in a running guest, and return its output.

    Args:
        host: the guest's host.
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


def wait_for(
    console: Path, wanted: Callable[[Inventory], bool] = lambda inventory: True, timeout: float = 120.0
) -> Inventory:
    """Wait until a guest's last inventory meets a condition.

    Args:
        console: the console's file.
        wanted: the condition. By default, any inventory meets it.
        timeout: seconds.

    Returns:
        The inventory.

    Raises:
        GuestError: no inventory did so in time. The text has the end of the console's output.
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
    """Return the path inside the host of the socket of a domain's console.

    No two hosts share it: after a migration the emulator that exits removes its own socket file.
    """
    return f"/run/{name}.console"


def _indent(parts: Sequence[str]) -> str:
    """Join XML fragments as lines below <devices>."""
    return "\n    ".join(line for part in parts for line in part.strip().splitlines())


def _receive(line: socket.socket, deadline: float, text: str) -> str:
    """Return more of the console's output.

    Raises:
        GuestError: the time is up, or the guest has ended.
    """
    try:
        line.settimeout(max(0.01, deadline - time.monotonic()))
        data = line.recv(65536)
    except socket.timeout:
        raise GuestError(f"{text}: no answer in time") from None
    if not data:
        raise GuestError(f"{text}: the guest is gone")
    return data.decode("utf-8", "replace")
