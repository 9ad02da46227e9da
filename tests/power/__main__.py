"""Build the image of the POWER host: python -m tests.power DIRECTORY."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from .image import PowerError, build


def main(directory: str) -> int:
    """Build the image in a directory, unless it is there. Return the exit status."""
    # A scratch directory is deleted when the build is stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        build(Path(directory).resolve())
    except PowerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
