"""Install the hook onto a test host as install.sh does, and record its calls."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness.libvirt_host import Host
from tests.helpers.paths import PROJECT

HOOK = "/etc/libvirt/hooks/qemu"
CALLS = "/run/hook-calls"


def install(host: Host, conf: str = "", project: Path = PROJECT, record: bool = False) -> None:
    """Put the hook onto a host, as its installer does, and have libvirtd find it.

    conf: settings of /etc/papr-hook.conf; record: also write each call and its exit status to CALLS.
    """
    script = (PROJECT / "hooks/qemu").read_text(encoding="utf-8")
    script = re.sub("(?m)^lib=.*$", f"lib={project}", script)
    host.write("/etc/papr-hook.conf", f"[papr-hook]\n{conf}")
    if record:
        host.write("/etc/libvirt/hooks/papr-hook", script, 0o755)
        script = f'#!/bin/sh\n/etc/libvirt/hooks/papr-hook "$@"\nstatus=$?\necho "$* $status" >>{CALLS}\nexit $status\n'
    host.write(HOOK, script, 0o755)
    host.reload()


def uninstall(host: Host) -> None:
    """Take the hook away again."""
    host.run(["rm", "-f", HOOK, "/etc/libvirt/hooks/papr-hook", "/etc/papr-hook.conf", CALLS])
    host.reload()


def calls(host: Host) -> list[str]:
    """The calls since the hook was put there, each with its exit status."""
    return host.run(["sh", "-c", f"[ ! -e {CALLS} ] || cat {CALLS}"]).stdout.splitlines()
