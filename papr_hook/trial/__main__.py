"""What install.sh --try runs in a throwaway root: see run, beside this."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .guest import GuestError
from .host import HostError
from .screen import Screen
from .story import Story, TrialError

DIRECTORY = Path("/trial")
"""It goes with the root."""


def main() -> int:
    """Show papr-hook on a throwaway host; return 0, or 1 where something went wrong."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        DIRECTORY.mkdir()
        Story(DIRECTORY, Screen()).tell()
    except (GuestError, HostError, TrialError, subprocess.CalledProcessError, OSError) as error:
        print(f"papr-hook: {error}", file=sys.stderr)
        return 1
    return 0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """End as with Ctrl-C, with the host; KeyboardInterrupt would let subprocess wait a while first."""
    raise SystemExit(130)


if __name__ == "__main__":
    sys.exit(main())
