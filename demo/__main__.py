"""Run the demonstration inside the throwaway root that demo/run unpacks."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.harness.guest_image import GuestError
from tests.harness.libvirt_host import HostError

from .console import Console
from .scenario import DemoError, Scenario

DIRECTORY = Path("/demo")
"""A directory of the throwaway root, which is deleted as a whole."""


def main() -> int:
    """Show papr-hook on a throwaway host, and return 0, or 1 if a step failed."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        DIRECTORY.mkdir()
        Scenario(DIRECTORY, Console()).run()
    except (GuestError, HostError, DemoError, subprocess.CalledProcessError, OSError) as error:
        print(f"papr-hook: {error}", file=sys.stderr)
        return 1
    return 0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """End as with Ctrl-C, with the host; KeyboardInterrupt would let subprocess wait a while first."""
    raise SystemExit(130)


if __name__ == "__main__":
    sys.exit(main())
