"""The manual pages: well-formed, and complete against the program."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from papr_hook import __version__
from papr_hook.commands import COMMANDS
from papr_hook.config import settings_page
from papr_hook.diagnostics import Name
from tests.helpers.cli import papr_hook
from tests.helpers.paths import GOLDEN, MANUAL, PROJECT


def test_settings_page_is_made_from_the_table(request: pytest.FixtureRequest) -> None:
    """papr-hook.conf(5) is what the table makes of itself; --regenerate writes it."""
    page = MANUAL / "papr-hook.conf.5"
    if request.config.getoption("--regenerate"):
        page.write_text(settings_page())
    assert page.read_text() == settings_page()


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("page", sorted(file.name for file in MANUAL.iterdir()))
def test_pages_are_well_formed(page: str) -> None:
    """groff has nothing to say against a page."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", MANUAL / page], stderr=subprocess.PIPE, text=True, check=True
    )
    assert done.stderr == ""


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def test_the_command_page_has_the_options_of_each_command() -> None:
    """papr-hook(1) has every option of --help and no other, by whole words."""
    page = (MANUAL / "papr-hook.1").read_text().replace("\\", "")
    documented = set(OPTION.findall(page.split(".SH SYNOPSIS")[1]))
    commands = [(name,) for name in COMMANDS] + [("gateway", action) for action in ("serve", "enable", "disable")]
    offered = {option for command in commands for option in OPTION.findall(papr_hook(*command, "--help").out)}
    assert documented == offered - {"--help"} | {"--version"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_synopsis_has_each_command(name: str) -> None:
    """The synopsis of papr-hook(1) and its list of commands have the command."""
    page = (MANUAL / "papr-hook.1").read_text()
    assert f".B papr-hook {name}\n" in page
    assert f"\n.B {name}\n" in page


def test_versions_agree() -> None:
    """The pages are of this version."""
    assert f'"papr-hook {__version__}"' in (MANUAL / "papr-hook.1").read_text()
    assert f'"papr-hook {__version__}"' in (MANUAL / "papr-hook.8").read_text()


def test_the_manual_lists_every_diagnostic() -> None:
    """papr-hook(8) has a paragraph for each name, with its rule."""
    page = (MANUAL / "papr-hook.8").read_text()
    listed = dict(
        re.findall(r'^\.IR ([a-z0-9-]+) " \((?:error|warning|warning or error|note)(?:, )?([a-z]*)\)"$', page, re.M)
    )
    assert listed == {name.value: name.rule.value if name.rule is not None else "" for name in Name}


def test_the_readme_shows_a_real_guest(request: pytest.FixtureRequest) -> None:
    """The trees in the README are what papr-hook show prints before and after; --regenerate writes them."""
    readme = PROJECT / "README.md"
    given = (GOLDEN / "readme-in.xml").read_bytes()
    laid_out = papr_hook("layout", "--sysfs", "/nowhere", stdin=given).out.encode()
    trees = iter(papr_hook("show", "--sysfs", "/nowhere", stdin=xml).out for xml in (given, laid_out))
    text = re.sub(r"(?s)```\n.*?```", lambda _: f"```\n{next(trees)}```", readme.read_text(), count=2)
    if request.config.getoption("--regenerate"):
        readme.write_text(text)
    assert readme.read_text() == text


def test_the_readme_is_short() -> None:
    """The README fits on two screens, and the guest before and after on the first."""
    lines = (PROJECT / "README.md").read_text().splitlines()
    assert len(lines) <= 90
    assert max(number for number, line in enumerate(lines) if line == "```") <= 40
