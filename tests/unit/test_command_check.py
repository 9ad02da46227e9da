"""papr-hook check, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from tests.helpers.cli import papr_hook
from tests.helpers.paths import GOLDEN

PC = GOLDEN / "pc-shaped-in.xml"
LAID_OUT = GOLDEN / "pc-shaped-out.xml"


def test_check_lists_violations() -> None:
    """Each violation is on a line with its line, its rule and the element."""
    ran = papr_hook("check", str(PC))
    assert ran.status == 1
    lines = ran.out.splitlines()
    assert (
        f"{PC}:14: error: <controller> pci 1 is a pcie-root-port; "
        "a pseries guest has pci-root controllers only [pci-root-only]" in lines
    )
    assert any(line.startswith(f"{PC}:28: error: <disk> vda shares vPHB 0 with <interface>") for line in lines), lines
    assert f"{PC}:33: error: <disk> vdb is at 0000:03:01.0, behind a pcie-to-pci-bridge [behind-bridge]" in lines


def test_check_complies() -> None:
    """A layout of ours complies."""
    ran = papr_hook("check", str(LAID_OUT))
    assert (ran.status, ran.out, ran.err) == (0, "complies\n", "")


def test_check_spares_are_a_warning_or_with_strict_an_error() -> None:
    """Too few spares do not break the contract, except for who asks for it."""
    ran = papr_hook("check", "--spares", "7", str(LAID_OUT))
    text = "<devices> has 4 of 7 spare vPHBs [too-few-spares]"
    assert (ran.status, ran.out) == (0, f"{LAID_OUT}: warning: {text}\n")
    strict = papr_hook("check", "--strict", "--spares", "7", str(LAID_OUT))
    assert (strict.status, strict.out) == (1, f"{LAID_OUT}: error: {text}\n")


def test_check_by_the_schema() -> None:
    """--schema names the assertion that fails; what is laid out passes."""
    ran = papr_hook("check", "--schema", str(PC))
    assert ran.status == 1
    line = "14: error: /domain/devices/controller[2]: A PCI controller is a pci-root. [pci-root-only]"
    assert f"{PC}:{line}" in ran.out.splitlines()
    assert papr_hook("check", "--schema", str(LAID_OUT)).out == "complies\n"


@pytest.mark.parametrize("name", ["x86", "powernv"])
def test_other_guests_are_not_judged(name: str) -> None:
    """Another machine's guest comes back as it is, and nothing is said against it."""
    given = GOLDEN / f"{name}-in.xml"
    assert papr_hook("layout", str(given)).out == given.read_text()
    assert papr_hook("check", str(given)).status == 0
    assert "not a pseries guest" in papr_hook("show", str(given)).out


def line_of(
    source: str, line: int | None, severity: str, name: str, rule: str | None, device: str | None, text: str
) -> str:
    """Return the line of text that has what an object of JSON has."""
    where = f"{source}:{line}" if line is not None else source
    return f"{where}: {severity}: {device} {text} [{name}]"


def test_json_has_every_diagnostic() -> None:
    """--json has what the text has, in fields."""
    text, json_ = papr_hook("check", str(PC)), papr_hook("check", "--json", str(PC))
    assert json_.status == text.status == 1
    found = json.loads(json_.out)
    assert [line_of(**entry) for entry in found] == text.out.splitlines()
    assert {entry["rule"] for entry in found} >= {"controllers", "addresses", "isolation"}


@pytest.mark.parametrize("name", ["pc-shaped-out", "x86-in", "keep-in"])
def test_json_of_a_compliant_guest_is_empty(name: str) -> None:
    """There are no diagnostics for a guest that complies or is not to be laid out."""
    ran = papr_hook("check", "--json", str(GOLDEN / f"{name}.xml"))
    assert (ran.status, json.loads(ran.out)) == (0, [])


def test_standard_input_has_a_name() -> None:
    """Diagnostics of standard input are under <stdin>."""
    assert papr_hook("check", stdin=PC.read_bytes()).out.startswith("<stdin>:")
