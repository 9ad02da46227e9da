"""Fixtures with real parts: hosts with systemd, one of each Debian release. They need root.

Their roots are kept in the directory that the environment variable PAPR_TEST_CACHE names, or made anew for each run.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from papr_hook.trial import guest

from .hosts import RELEASES, BootedHost, make_root


@pytest.fixture(scope="session")
def roots() -> Iterator[dict[str, Path]]:
    """Make the roots of all releases, by their names."""
    with ExitStack() as stack:
        cache = os.environ.get("PAPR_TEST_CACHE")
        directory = Path(cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="papr-"))).resolve()
        with ThreadPoolExecutor() as pool:
            made = pool.map(lambda release: make_root(release, directory), RELEASES)
            yield dict(zip(RELEASES, made))


@pytest.fixture(scope="session")
def image() -> Iterator[guest.Image]:
    """Build what a test guest boots."""
    with ExitStack() as stack:
        cache = os.environ.get("PAPR_TEST_CACHE")
        directory = Path(cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="papr-"))).resolve()
        yield guest.build(directory)


@contextmanager
def started(roots: dict[str, Path], release: str, name: str | None = None) -> Iterator[BootedHost]:
    """Boot a host with a copy of the project; its name is that of its release, where that is not taken."""
    with BootedHost(roots[release], name or release) as host:
        host.copy_project()
        yield host


@pytest.fixture(scope="module", params=RELEASES)
def host(request: pytest.FixtureRequest, roots: dict[str, Path]) -> Iterator[BootedHost]:
    """Boot a host that the tests of a module share: each leaves it as it found it."""
    with started(roots, request.param) as one:
        yield one
