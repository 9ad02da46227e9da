"""The pages in docs/: their code blocks, and the shell sessions in them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from tests.helpers.paths import PROJECT

DOCS = PROJECT / "docs"
PAGES = sorted(DOCS.glob("*.md"))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILES = {"disk": "disk.xml", "interface": "nic.xml"}

_COMMAND = """\
#!{python}
import sys
from pathlib import Path

sys.path.insert(0, "{project}")

from papr_hook import config
from papr_hook.commands import adopt

config.CONF = Path("/nowhere/papr-hook.conf")
adopt.DIRECTORY = Path("{directory}/backups")

from papr_hook.cli import run

run()
"""


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Those in the language console are sessions: commands with their output, of a user after $, and of root after # on a
    host with the example as a guest.
    """

    page: Path
    language: str
    text: str


def blocks(language: str) -> Iterator[Block]:
    """Yield the code blocks in a language, of all pages."""
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text()):
            if found[1] == language:
                yield Block(page, found[1], found[2])


def prepare(directory: Path) -> str:
    """Write what the sessions need into a directory, and return the PATH that has papr-hook.

    That is the example, the domain XML and the devices that the pages show, and papr-hook without the machine's
    settings and backups.
    """
    (directory / "web.xml").write_bytes((DOCS / "web.xml").read_bytes())
    for block in blocks("xml"):
        root = etree.fromstring(block.text)
        name = f"{root.findtext('name')}.xml" if root.tag == "domain" else _FILES.get(str(root.tag))
        if name is not None:
            (directory / name).write_text(block.text)
    command = directory / "bin/papr-hook"
    command.parent.mkdir()
    command.write_text(_COMMAND.format(python=sys.executable, project=PROJECT, directory=directory))
    command.chmod(0o755)
    return f"{command.parent}:/usr/sbin:/usr/bin:/sbin:/bin"


def play(page: Path, prompt: str, run: Callable[[str], str]) -> str:
    """Run the sessions of a page in one shell, and return the page with what the commands print.

    Args:
        page: The page.
        prompt: The prompt of the sessions, $ or #.
        run: What runs a script of bash, and returns its output.
    """
    text = page.read_text()
    commands = [
        line[2:]
        for block in _BLOCK.finditer(text)
        if block[1] == "console"
        for line in block[2].splitlines()
        if line.startswith(f"{prompt} ")
    ]
    printed = run("exec 2>&1\n" + "".join(f"{command}\necho\necho '@@@'\n" for command in commands)).split("@@@\n")
    outputs = iter([f"{output.rstrip()}\n" if output.strip() else "" for output in printed])

    def fill(block: re.Match[str]) -> str:
        lines = block[2].splitlines()
        if block[1] != "console" or not lines[0].startswith(f"{prompt} "):
            return block[0]
        filled = (f"{line}\n{next(outputs)}" for line in lines if line.startswith(f"{prompt} "))
        # An empty line comes before each further command.
        return f"```console\n{chr(10).join(filled)}```"

    return _BLOCK.sub(fill, text)
