"""The pages in docs/: each example is run or parsed, and each link leads somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from lxml import etree

from papr_hook import cli
from papr_hook.config import load_config
from papr_hook.diagnostics import Name
from tests.helpers import documents
from tests.helpers.cli import papr_hook
from tests.helpers.documents import DOCS, PAGES, Block, blocks
from tests.helpers.paths import GOLDEN, PROJECT

LINK = re.compile(r"\]\(([^)#]*)(?:#[^)]*)?\)")
README_COMMAND = re.compile(r"^    ((?:papr-hook|\./install\.sh|tests/run)\b.*?)(?:  .*)?$", re.MULTILINE)
OTHER_PROGRAMS = {"apt", "ausearch", "dnf", "install", "journalctl", "semodule", "systemctl"}
LANGUAGES = {"", "console", "ini", "js", "sh", "xml", "yaml"}


def commands() -> list[tuple[str, list[str]]]:
    """Return the commands of the pages and of the README that only a host can run, each with its page."""
    found = [(block.page.name, shlex.split(line)) for block in blocks("sh") for line in block.text.splitlines() if line]
    readme = (PROJECT / "README.md").read_text()
    return found + [("README.md", shlex.split(line)) for line in README_COMMAND.findall(readme)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_sessions(request: pytest.FixtureRequest, tmp_path: Path, page: Path) -> None:
    """What a page shows after a command is what that prints; --regenerate writes it."""
    path = documents.prepare(tmp_path)

    def run(script: str) -> str:
        argv = ["bash", "-c", script]
        done = subprocess.run(argv, cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=True)
        return done.stdout

    played = documents.play(page, "$", run)
    if request.config.getoption("--regenerate"):
        page.write_text(played)
    assert page.read_text() == played


def test_the_picture(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """docs/web.svg is what papr-hook draws of the example's layout; --regenerate writes it."""
    laid_out = papr_hook("layout", str(DOCS / "web.xml")).out.encode()
    drawn, file = tmp_path / "web.svg", DOCS / "web.svg"
    papr_hook("show", "--long", "--svg", str(drawn), stdin=laid_out)
    if request.config.getoption("--regenerate"):
        file.write_bytes(drawn.read_bytes())
    assert file.read_bytes() == drawn.read_bytes()


@pytest.mark.parametrize(("page", "argv"), commands(), ids=lambda value: value if isinstance(value, str) else value[0])
def test_commands(page: str, argv: list[str]) -> None:
    """A command exists, and has the options that a page gives it."""
    program, *arguments = argv
    if program == "papr-hook":
        cli._build_parser(arguments).parse_args(arguments)
    elif program == "./install.sh":
        usage = subprocess.run([PROJECT / program, "--help"], capture_output=True, text=True, check=True).stdout
        assert all(f" {argument} " in usage for argument in arguments), page
    elif program == "virsh":
        if shutil.which(program) is None:
            pytest.skip("virsh is not installed")
        usage = subprocess.run(["virsh", "help", arguments[0]], capture_output=True, text=True, check=True).stdout
        assert all(f" {argument} " in usage for argument in arguments if argument.startswith("--")), page
    elif "/" in program:
        assert (PROJECT / program).stat().st_mode & 0o111, page
    else:
        assert program in OTHER_PROGRAMS, page


@pytest.mark.parametrize("block", list(blocks("xml")), ids=lambda block: f"{block.page.name}: {block.text.split()[0]}")
def test_xml(block: Block) -> None:
    """papr-hook reads the domain XML and the metadata of the pages."""
    root = etree.fromstring(block.text)
    if root.tag == "metadata":
        guest = etree.fromstring((GOLDEN / "pc-shaped-in.xml").read_bytes())
        for old in guest.findall("metadata"):
            guest.remove(old)
        guest.insert(0, root)
        root = guest
    if root.tag == "domain":
        ran = papr_hook("layout", stdin=etree.tostring(root))
        assert (ran.status, "error" in ran.err) == (0, False), ran.err


@pytest.mark.parametrize("block", list(blocks("ini")), ids=lambda block: str(block.page.name))
def test_settings(block: Block, tmp_path: Path) -> None:
    """The settings of the pages are valid."""
    file = tmp_path / "papr-hook.conf"
    file.write_text(block.text)
    load_config(file)


@pytest.mark.parametrize("page", [*PAGES, *PROJECT.glob("*.md")], ids=lambda page: str(page.name))
def test_links(page: Path) -> None:
    """Each link of a page leads to a file."""
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_index_has_every_page() -> None:
    """docs/README.md links to each page, and the README to docs/."""
    linked = set(LINK.findall((DOCS / "README.md").read_text()))
    assert {page.name for page in PAGES} - {"README.md"} <= linked
    assert "docs/README.md" in LINK.findall((PROJECT / "README.md").read_text())


def test_the_rules_page_has_names_that_exist() -> None:
    """The names of violations on the page of the rules are those that check reports."""
    named = re.findall("`([a-z0-9]+(?:-[a-z0-9]+)+)`", (DOCS / "rules.md").read_text())
    assert len(named) > 10
    assert set(named) - {"pci-root"} <= {name.value for name in Name}


def test_lines_and_languages() -> None:
    """Lines are as short as in the rest of the project, but for tables and output, and code has a known language."""
    long, unknown = [], set()
    for page in PAGES:
        text = re.sub(r"(?ms)^(```\w*)\n.*?^```$", r"\1", page.read_text())
        unknown |= set(re.findall("^```(.*)$", text, re.MULTILINE)) - LANGUAGES
        if page.name != "gateway.md":
            long += [line for line in text.splitlines() if len(line) > 120 and line[0] not in "|<"]
    assert (long, unknown) == ([], set())
