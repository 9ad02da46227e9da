"""Fixtures with real parts: hosts with systemd, one of each Debian release. They need root.

Their roots are kept in the directory that the environment variable PAPR_TEST_CACHE names, or made for each run.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.harness import modular
from tests.harness.booted_host import NEWEST, RELEASES, BootedHost, make_root, started
from tests.helpers.installation import CONF, INSTALL, install


@pytest.fixture(scope="session")
def roots(cache: Path) -> dict[str, Path]:
    """Make the roots of all releases, by their names."""
    with ThreadPoolExecutor() as pool:
        releases = (*RELEASES, NEWEST)
        return dict(zip(releases, pool.map(lambda release: make_root(release, cache), releases)))


@pytest.fixture(scope="session")
def boot(cache: Path, roots: dict[str, Path]) -> modular.Boot:
    """Return what boots a host with a copy of the project: a release, or MODULAR, and a name if it is another one."""

    def start(kind: str, name: str | None = None) -> AbstractContextManager[BootedHost]:
        if kind != modular.MODULAR:
            return started(roots, kind, name)
        root = roots[modular.RELEASE]
        return modular.started(root, modular.build(cache, root), name or kind)

    return start


@pytest.fixture(scope="session")
def modular_host(boot: modular.Boot) -> Iterator[BootedHost]:
    """Boot a host with modular daemons once: packages are only installed on it once."""
    with boot(modular.MODULAR) as one:
        yield one


@pytest.fixture(scope="module", params=RELEASES)
def host(request: pytest.FixtureRequest, boot: modular.Boot) -> Iterator[BootedHost]:
    """Boot a host that the tests of a module share: each leaves it as it found it.

    It has libvirtd. A module that names MODULAR beside RELEASES gets one with virtqemud, too, which modules share.
    """
    if request.param == modular.MODULAR:
        yield request.getfixturevalue("modular_host")
    else:
        with boot(request.param) as one:
            yield one


@pytest.fixture
def gated(host: BootedHost) -> Iterator[BootedHost]:
    """Install papr-hook on a host, with its gateway, and remove it in the end."""
    install(host)
    yield host
    host.sh(f"virsh -q destroy crowd; virsh -q undefine crowd; {INSTALL} --uninstall; rm -f {CONF}", check=False)
