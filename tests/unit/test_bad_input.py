"""Broken inputs, a folder each: input.xml, and error.txt with what the one line about it contains."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.domainxml.text import MAX_BYTES
from tests.helpers.cli import one_line, papr_hook
from tests.helpers.paths import GOLDEN, INVALID

GOOD = GOLDEN / "pc-shaped-in.xml"


NAMES = sorted(folder.name for folder in INVALID.iterdir())
CANNOT_BE_LAID_OUT = "too-many-endpoints"


@pytest.mark.parametrize(
    ("command", "name"),
    [("layout", name) for name in NAMES]
    + [(command, name) for command in ("check", "show") for name in NAMES if name != CANNOT_BE_LAID_OUT],
)
def test_one_line_and_exit_2(command: str, name: str) -> None:
    """A broken input is named with its fault in one line, and nothing is printed."""
    file = INVALID / name / "input.xml"
    ran = papr_hook(command, str(file))
    assert ran.status == 2
    assert ran.out == ""
    assert one_line(ran.err), ran.err
    assert ran.err.startswith(f"papr-hook: {file}: ")
    assert (INVALID / name / "error.txt").read_text().strip() in ran.err


def test_check_and_show_of_what_cannot_be_laid_out() -> None:
    """A guest with too many endpoints can be checked and drawn."""
    file = str(INVALID / CANNOT_BE_LAID_OUT / "input.xml")
    analysis = papr_hook("check", file)
    assert analysis.status == 1
    assert "error: 32 host endpoints need 32 vPHBs" in analysis.out
    assert "<hostdev> 0001:20:00.0" in papr_hook("show", file).out


@pytest.mark.parametrize("name", NAMES)
def test_in_place_leaves_a_broken_file_alone(name: str, tmp_path: Path) -> None:
    """Nothing is written before it is known to be right."""
    data = (INVALID / name / "input.xml").read_bytes()
    file = tmp_path / "guest.xml"
    file.write_bytes(data)
    assert papr_hook("layout", "-i", str(file)).status == 2
    assert file.read_bytes() == data
    assert list(tmp_path.iterdir()) == [file]


def test_too_long() -> None:
    """Domain XML of 100 MB is refused."""
    ran = papr_hook("layout", stdin=b" " * (100 * 1024 * 1024))
    assert ran.status == 2
    assert one_line(ran.err)
    assert str(MAX_BYTES) in ran.err


@pytest.mark.parametrize("command", ["layout", "check", "show"])
def test_missing_file(command: str) -> None:
    """A file that is not there is named."""
    ran = papr_hook(command, "/nowhere/guest.xml")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "papr-hook: /nowhere/guest.xml: No such file or directory\n"


def test_directory() -> None:
    """A directory is no definition."""
    ran = papr_hook("layout", "/")
    assert ran.status == 2
    assert one_line(ran.err)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["layout", "--conf", "/nowhere.conf"], "/nowhere.conf: no such file"),
        (["layout", "--spares", "31"], "--spares: spares = '31' is not a number from 0 to 30"),
        (["layout", "--spares=-1"], "'-1' is not a number from 0 to 30"),
        (["layout", "-i"], "-i needs a FILE"),
        (["layout", "-i", "-c", "test:///default", "test"], "-i needs a FILE"),
        (["layout", "-c", "test:///default"], "-c needs the name of a guest"),
        (["layout", "one.xml", "two.xml"], "see papr-hook --help"),
        (["lay"], "invalid choice"),
        ([], "required"),
    ],
)
def test_wrong_arguments(arguments: list[str], says: str) -> None:
    """Wrong arguments are one line too."""
    ran = papr_hook(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert one_line(ran.err), ran.err
    assert says in ran.err
