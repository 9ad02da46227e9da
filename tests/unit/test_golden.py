"""Layouts, each a pair of definitions: NAME-in.xml and what it is laid out as, NAME-out.xml."""

from __future__ import annotations

import pytest

from papr_hook import pipeline
from papr_hook.config import Config
from papr_hook.layout import check
from tests.helpers.paths import GOLDEN
from tests.helpers.sysfs import GROUPS, write_sysfs

NAMES = sorted(file.name[: -len("-in.xml")] for file in GOLDEN.glob("*-in.xml"))


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The policy of a host with some IOMMU groups and no networks."""
    root = tmp_path_factory.mktemp("sysfs")
    return Config(sysfs=write_sysfs(root, GROUPS), domain_dir=root / "none", libvirt_run_dir=root / "none")


@pytest.mark.parametrize("name", NAMES)
def test_layout(name: str, config: Config, request: pytest.FixtureRequest) -> None:
    """Domain XML comes out as its golden one; --regenerate writes the golden one."""
    given = (GOLDEN / f"{name}-in.xml").read_bytes()
    found = pipeline.analyze(given, config, "x86_64").apply_layout().data
    golden = GOLDEN / f"{name}-out.xml"
    if request.config.getoption("--regenerate"):
        golden.write_bytes(found)
    assert golden.exists(), f"{golden} is missing; --regenerate makes it"
    assert found.decode() == golden.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_golden_complies(name: str, config: Config) -> None:
    """What a layout makes complies, and laying it out again changes nothing."""
    golden = (GOLDEN / f"{name}-out.xml").read_bytes()
    analysis = pipeline.analyze(golden, config, "x86_64")
    assert check.complies(analysis.violations()), [str(v) for v in analysis.violations()]
    assert analysis.apply_layout().data == golden


def test_no_golden_without_its_input() -> None:
    """Each golden definition has an input that it was made from."""
    outputs = {file.name[: -len("-out.xml")] for file in GOLDEN.glob("*-out.xml")}
    assert outputs == set(NAMES)
