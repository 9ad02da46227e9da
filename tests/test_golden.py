"""Layouts, each a pair of definitions: NAME-in.xml and what it is laid out as, NAME-out.xml."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook import check, engine
from papr_hook.policy import Policy
from tests.hosts import GROUPS, write_sysfs

PAIRS = Path(__file__).parent / "golden"
NAMES = sorted(file.name[: -len("-in.xml")] for file in PAIRS.glob("*-in.xml"))


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """The policy of a host with some IOMMU groups and no networks."""
    root = tmp_path_factory.mktemp("sysfs")
    return Policy(sysfs=write_sysfs(root, GROUPS), definitions=root / "none", run=root / "none")


@pytest.mark.parametrize("name", NAMES)
def test_layout(name: str, policy: Policy, request: pytest.FixtureRequest) -> None:
    """A definition comes out as its golden one; --regenerate writes the golden one anew."""
    given = (PAIRS / f"{name}-in.xml").read_bytes()
    found, _ = engine.judge(given, policy, "x86_64").laid_out()
    golden = PAIRS / f"{name}-out.xml"
    if request.config.getoption("--regenerate"):
        golden.write_bytes(found)
    assert golden.exists(), f"{golden} is missing; --regenerate makes it"
    assert found.decode() == golden.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_golden_complies(name: str, policy: Policy) -> None:
    """What a layout makes complies, and laying it out again changes nothing."""
    golden = (PAIRS / f"{name}-out.xml").read_bytes()
    judged = engine.judge(golden, policy, "x86_64")
    assert check.complies(judged.violations()), [str(v) for v in judged.violations()]
    assert judged.laid_out()[0] == golden


def test_no_golden_without_its_input() -> None:
    """Each golden definition has an input that it was made from."""
    outputs = {file.name[: -len("-out.xml")] for file in PAIRS.glob("*-out.xml")}
    assert outputs == set(NAMES)
