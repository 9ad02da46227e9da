"""Ask a guest's agent whether the guest can take hotplugged PCI devices.

PAPR's hotplug needs programs in the guest: rtas_errd gets the event from the firmware and runs drmgr, which adds the
slot through the kernel's rpaphp.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Final

from ..diagnostics import Diagnostic, Name, note, warning
from ..errors import LibvirtError

PARTS: Final = {
    "rtas_errd": "the daemon rtas_errd does not run (package ppc64-diag)",
    "drmgr": "the program drmgr is missing (package powerpc-utils, on Debian powerpc-ibm-utils)",
    "rpaphp": "the kernel has no module rpaphp",
}
"""What hotplug needs, each with how to say that it is missing."""

SCRIPT: Final = """\
PATH=/usr/sbin:/usr/bin:/sbin:/bin
pidof rtas_errd >/dev/null && echo rtas_errd
command -v drmgr >/dev/null && echo drmgr
[ -d /sys/module/rpaphp ] || modprobe -q -n rpaphp && echo rpaphp
echo asked
"""
ASK_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.2

Ask = Callable[[str], str]
"""Sends a command to the agent and returns its answer, both JSON, or raises LibvirtError."""


def judge_agent(ask: Ask, clock: Callable[[], float] = time.monotonic) -> Diagnostic:
    """Return what the agent says about the readiness for hotplug.

    Args:
        ask: Sends a command to the agent.
        clock: A clock in seconds.
    """
    try:
        words = _run_script(ask, clock)
    except (LibvirtError, ValueError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, LibvirtError) else "its answer cannot be read"
        text = f"the guest agent does not report whether the guest can take hotplugged devices: {reason}"
        return note(Name.HOTPLUG_UNKNOWN, text)
    missing = [text for part, text in PARTS.items() if part not in words]
    if missing:
        text = f"{'; '.join(missing)}: without that, the guest does not see attached devices"
        return warning(Name.HOTPLUG_NOT_READY, text)
    return note(Name.HOTPLUG_READY, f"the guest can take hotplugged devices: it has {', '.join(PARTS)}")


def _run_script(ask: Ask, clock: Callable[[], float]) -> list[str]:
    """Return the words that the script printed. Raises LibvirtError, ValueError, KeyError or TypeError."""
    pid = _call(ask, "guest-exec", {"path": "/bin/sh", "arg": ["-c", SCRIPT], "capture-output": True})["pid"]
    deadline = clock() + ASK_SECONDS
    while True:
        status = _call(ask, "guest-exec-status", {"pid": pid})
        if status["exited"]:
            words = base64.b64decode(str(status.get("out-data", ""))).decode("utf-8", "replace").split()
            if "asked" not in words:
                raise LibvirtError("its shell cannot be run")
            return words
        if clock() > deadline:
            raise LibvirtError(f"no answer within {ASK_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def _call(ask: Ask, name: str, arguments: dict[str, object]) -> dict[str, object]:
    answer = json.loads(ask(json.dumps({"execute": name, "arguments": arguments})))
    returned = answer["return"]
    if not isinstance(returned, dict):
        raise TypeError(name)
    return returned
