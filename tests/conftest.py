"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from papr_hook import config
from tests.harness import guest_image
from tests.helpers.paths import NO_CORPUS

# A shell starts background processes with SIGINT ignored, and children inherit that. The tests interrupt children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Domain XML with many devices takes long to generate, and is large.
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=200, derandomize=True, deadline=None, suppress_health_check=SLOW)
settings.register_profile("long", settings.get_profile("ci"), max_examples=100_000, derandomize=False, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --regenerate and --no-skips."""
    parser.addoption("--regenerate", action="store_true", help="write the golden domain XML from the current layout")
    parser.addoption("--no-skips", action="store_true", help="fail tests that are skipped, but for lack of a corpus")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With --no-skips, turn a skipped test into a failed one."""
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if NO_CORPUS not in reason:
            report.outcome = "failed"
            report.longrepr = f"must not be skipped here: {reason}"
    return report


class AbsentFile(type(Path())):  # type: ignore[misc] # the class depends on the platform
    """A path to a file that cannot be read because it does not exist, whatever the machine has there."""

    def read_text(self, *args: object, **kwargs: object) -> NoReturn:
        """Raise FileNotFoundError."""
        raise FileNotFoundError(2, os.strerror(2), str(self))


@pytest.fixture(scope="session")
def cache() -> Iterator[Path]:
    """Make a directory for what is built once, unless PAPR_TEST_CACHE names one that is kept."""
    with ExitStack() as stack:
        kept = os.environ.get("PAPR_TEST_CACHE")
        yield Path(kept or stack.enter_context(tempfile.TemporaryDirectory(prefix="papr-"))).resolve()


@pytest.fixture(scope="session")
def image(cache: Path) -> guest_image.Image:
    """Build what a test guest boots."""
    return guest_image.build(cache)


@pytest.fixture(scope="session", autouse=True)
def hermetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the machine's configuration file and backups, and let all directories of the default settings be empty."""
    empty = tmp_path_factory.mktemp("machine")
    names = list(config.Config.settings())
    defaults = config.Config.__init__.__defaults__
    assert defaults is not None and len(defaults) == len(names)
    hidden = [empty / name if isinstance(value, Path) else value for name, value in zip(names, defaults)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CONF", AbsentFile(config.CONF))
        patch.setattr(config.Config.__init__, "__defaults__", tuple(hidden))
        patch.setattr("papr_hook.commands.adopt.DIRECTORY", empty / "backups")
        yield
