"""Build what the real hosts and guests start from: python -m tests.harness DIRECTORY."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .booted_host import NEWEST, RELEASES, make_root
from .guest_image import build


def main(argv: Sequence[str]) -> int:
    """Build the guest image and the hosts' roots in a directory, as far as it lacks them."""
    directory = Path(argv[0]).resolve()
    with ThreadPoolExecutor() as pool:
        roots = [pool.submit(make_root, release, directory) for release in (*RELEASES, NEWEST)]
        roots += [
            pool.submit(make_root, "bookworm", directory, "sysvinit"),
            pool.submit(make_root, "trixie", directory, "none"),
        ]
        build(directory)
        for root in roots:
            root.result()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
