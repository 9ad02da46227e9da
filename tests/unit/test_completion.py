"""The completion of the command line, in interactive bash and zsh."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from completion.arguments import read_commands
from papr_hook.commands import COMMANDS
from tests.helpers.cli import papr_hook
from tests.helpers.paths import PROJECT

COMPLETIONS = {"bash": PROJECT / "completion/papr-hook", "zsh": PROJECT / "completion/_papr-hook"}
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
OPTIONS = re.compile("^  (-.*?)(?:  .*)?$", re.MULTILINE)
"""The options of a line of --help."""

DEADLINE = 30.0

NODE = """\
<node>
  <domain type='test'><name>{}</name><memory>8192</memory><os><type>hvm</type></os></domain>
  <domain type='test'><name>web-2</name><memory>8192</memory><os><type>hvm</type></os></domain>
  <domain type='test'><name>data base</name><memory>8192</memory><os><type>hvm</type></os></domain>
</node>
"""
"""A host of libvirt's test driver, with guests."""

RC = {
    "bash": r"""
        PS1='' PS2='' HISTFILE=
        bind 'set bell-style none'
        bind '"\C-t": insert-completions'
        bind -x '"\C-g": printf "\n<<%s>>\n" "$READLINE_LINE"'
        source "$COMPLETION"
    """,
    "zsh": r"""
        PS1='' PS2='' RPS1='' HISTFILE=
        unsetopt beep zle_bracketed_paste 2>/dev/null
        unset zle_bracketed_paste
        autoload -Uz compinit && compinit -u -D
        source "$COMPLETION"
        print-line() { print -r -- $'\n'"<<$BUFFER>>" }
        zle -N print-line
        bindkey '^G' print-line
        bindkey '^U' kill-whole-line
        zle -C all-matches complete-word _generic
        bindkey '^T' all-matches
        zstyle ':completion:all-matches:*' completer _all_matches _complete
        zstyle ':completion:all-matches:*' insert yes
        zstyle ':completion:*' format ''
    """,
}
"""TAB completes, Ctrl-T inserts everything that could follow, Ctrl-G prints the line."""


class Shell:
    """An interactive shell on a terminal."""

    def __init__(self, name: str, directory: Path) -> None:
        environment = {
            "COMPLETION": str(COMPLETIONS[name]),
            "HOME": str(directory),
            "PATH": "/usr/bin:/bin",
            "TERM": "dumb",
            "ZDOTDIR": str(directory),
            "LC_ALL": "C.UTF-8",
        }
        rc = directory / (".bashrc" if name == "bash" else ".zshrc")
        rc.write_text(f"{RC[name]}\nprintf 'ready\\n'\n")
        argv = ["bash", "--noprofile", "--rcfile", str(rc)] if name == "bash" else ["zsh", "--no-global-rcs"]
        self._terminal, inside = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv, "-i"],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment,
            cwd=directory,
        )
        os.close(inside)
        self._read(r"ready\r\n")

    def tab(self, line: str) -> str:
        """Return what a line becomes when TAB is pressed at its end."""
        return self._complete(line, b"\t")

    def offers(self, line: str) -> set[str]:
        """Return the words that may follow in the place of the last word of a line."""
        words = shlex.split(self._complete(line, b"\x14"))
        # zsh adds a = to the last of several options.
        return {word.rstrip("=") for word in words[line.count(" ") :]}

    def close(self) -> None:
        """End the shell."""
        os.write(self._terminal, b"\x15exit\n")
        self._process.wait(DEADLINE)
        os.close(self._terminal)

    def _complete(self, line: str, key: bytes) -> str:
        os.write(self._terminal, b"\x15" + line.encode() + key + b"\x07")
        return self._read("<<(.*)>>")

    def _read(self, pattern: str) -> str:
        """Read what the shell prints up to a match of a pattern. Return the match's last group."""
        printed = ""
        deadline = time.monotonic() + DEADLINE
        while True:
            found = re.search(pattern, printed)
            if found is not None:
                return found[found.re.groups]
            assert select.select([self._terminal], [], [], deadline - time.monotonic())[0], printed
            printed += os.read(self._terminal, 65536).decode()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with files, and a host of libvirt's test driver."""
    made = tmp_path_factory.mktemp("completion")
    (made / "guest one.xml").write_text("")
    (made / "xml").mkdir()
    (made / "node.xml").write_text(NODE.format("web-1"))
    return made


@pytest.fixture(scope="module", params=COMPLETIONS)
def shell(request: pytest.FixtureRequest, directory: Path) -> Iterator[Shell]:
    """Start a shell that has the completion."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    started = Shell(request.param, directory)
    yield started
    started.close()


@pytest.mark.parametrize("name", COMPLETIONS)
def test_the_files_are_made_from_the_parsers(request: pytest.FixtureRequest, name: str) -> None:
    """A completion is what the parsers make of it; --regenerate writes it."""
    file = COMPLETIONS[name]
    argv = [sys.executable, "-m", "completion", name]
    made = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    if request.config.getoption("--regenerate"):
        file.write_text(made)
    assert file.read_text() == made, "run pytest tests/unit/test_completion.py --regenerate"


def options(*command: str) -> set[str]:
    """Return the options that --help has for a command."""
    return {name for line in OPTIONS.findall(papr_hook(*command, "--help").out) for name in OPTION.findall(line)}


def test_every_option_is_known() -> None:
    """The shells learn of each option that --help has, for each command."""
    for command in read_commands():
        known = {name for argument in command.arguments for name in argument.names}
        assert known == options(*command.words), command.words


def test_commands_and_options(shell: Shell) -> None:
    """Each command, and each long option of each command, is offered."""
    assert shell.offers("papr-hook ") == set(COMMANDS)
    assert shell.offers("papr-hook gateway ") == {"serve", "enable", "disable"}
    assert shell.tab("papr-hook sho") == "papr-hook show "
    for command in read_commands():
        expected = {option for option in options(*command.words) if option.startswith("--")}
        assert shell.offers(" ".join(("papr-hook", *command.words, "--"))) == expected, command.words


@pytest.mark.parametrize("option", ["-c ", "--connect ", "--connect="])
def test_guests(shell: Shell, directory: Path, option: str) -> None:
    """Where a command takes a guest, the guests at the connection URI are offered."""
    uri = f"test://{directory}/node.xml"
    names = {"web-1", "web-2", "data base"}
    for command in ("adopt", "attach", "show", "check --json", "layout --diff", "adopt web-1"):
        assert shell.offers(f"papr-hook {command} {option}{uri} ") == names, command
    assert names < shell.offers(f"papr-hook plan {option}{uri} ")
    assert names < shell.offers(f"papr-hook layout {option}{uri} --previous ")
    assert shell.tab(f"papr-hook adopt {option}{uri} w") == f"papr-hook adopt {option}{uri} web-"


@pytest.mark.parametrize(
    ("typed", "line"), [("da", "data\\ base "), ('"da', '"data base" '), ("data\\ b", "data\\ base ")]
)
def test_a_guest_whose_name_has_a_blank(shell: Shell, directory: Path, typed: str, line: str) -> None:
    """A name is quoted, as the user began to quote it."""
    start = f"papr-hook adopt -c test://{directory}/node.xml "
    assert shell.tab(start + typed) == start + line
    # Here a file may follow, too.
    start = f"papr-hook plan -c test://{directory}/node.xml "
    assert shell.tab(start + typed) == start + line


def test_no_guests(shell: Shell, directory: Path) -> None:
    """If libvirt cannot be asked, nothing is offered, and the terminal shows no error."""
    line = f"papr-hook adopt -c test://{directory}/missing.xml w"
    assert shell.tab(line) == line


def test_files(shell: Shell) -> None:
    """Where a command takes a file or directory, these are offered."""
    for command in ("show", "check", "attach web-1", "show --conf", "gateway serve --listen"):
        assert shell.tab(f"papr-hook {command} no") == f"papr-hook {command} node.xml ", command
        assert shell.tab(f"papr-hook {command} gu") == f"papr-hook {command} guest\\ one.xml ", command
    assert shell.tab("papr-hook show --svg=no") == "papr-hook show --svg=node.xml "
    assert shell.tab("papr-hook plan --conf node.xml gu") == "papr-hook plan --conf node.xml guest\\ one.xml "
    assert shell.tab("papr-hook layout --links ") == "papr-hook layout --links xml/"


def test_uris_and_other_values(shell: Shell) -> None:
    """libvirt's usual URIs are offered, and nothing for a number."""
    for option in ("-c ", "--connect ", "--connect="):
        assert shell.tab(f"papr-hook show {option}qemu:///sy") == f"papr-hook show {option}qemu:///system ", option
        assert shell.tab(f"papr-hook show {option}q") == f"papr-hook show {option}qemu:///s", option
    assert shell.tab("papr-hook layout --spares ") == "papr-hook layout --spares "
