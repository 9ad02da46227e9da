"""Build what the real hosts and guests start from: python -m tests.harness DIRECTORY."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import guest_image, modular
from .booted_host import NEWEST, RELEASES, make_root


def main(argv: Sequence[str]) -> int:
    """Build the guest image, the hosts' roots and the modular daemons in a directory, as far as it lacks them."""
    directory = Path(argv[0]).resolve()
    with ThreadPoolExecutor() as pool:
        roots = {release: pool.submit(make_root, release, directory) for release in (*RELEASES, NEWEST)}
        others = [
            pool.submit(make_root, "bookworm", directory, "sysvinit"),
            pool.submit(make_root, "trixie", directory, "none"),
        ]
        guest_image.build(directory)
        modular.build(directory, roots[modular.RELEASE].result())
        for root in (*roots.values(), *others):
            root.result()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
