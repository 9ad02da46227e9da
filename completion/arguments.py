"""What the command line takes, read from the argument parsers."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from papr_hook.commands import COMMANDS

KINDS = {
    "ACTION": "",
    "ARCH": "",
    "DIR": "directories",
    "FILE": "files",
    "FILE|GUEST": "files_guests",
    "GUEST": "guests",
    "MAC=NAME": "",
    "N": "",
    "PATH": "files",
    "URI": "uris",
}
"""What a shell offers for a value, by its name in --help; "" is nothing."""


@dataclass(frozen=True)
class Argument:
    """An option, or a positional argument.

    Attributes:
        names: The names of an option; none for a positional argument.
        metavar: The name of its value in --help; "" for an option without a value.
        kind: What a shell offers for the value: a value of KINDS, or source, which is guests with -c and else files.
        help: What it does.
        excluded: The names of the options that cannot be given with it, its own ones if it may be given once.
        repeats: Whether it may be given several times.
    """

    names: tuple[str, ...]
    metavar: str
    kind: str
    help: str
    excluded: tuple[str, ...]
    repeats: bool


@dataclass(frozen=True)
class Command:
    """A command, or papr-hook itself.

    Attributes:
        words: The words that name it, without papr-hook.
        arguments: What it takes, besides the name of a command.
        commands: The summaries of the commands that may follow, by name.
    """

    words: tuple[str, ...]
    arguments: tuple[Argument, ...]
    commands: dict[str, str]


def read_commands() -> Iterator[Command]:
    """Yield papr-hook, and each of its commands."""
    version = Argument(("--version",), "", "", "print the version", ("--version",), False)
    (help_,) = _read((), argparse.ArgumentParser()).arguments
    yield Command((), (help_, version), dict(COMMANDS))
    for name in COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"papr_hook.commands.{name}").add_arguments(parser)
        yield from _read_all((name,), parser)


def _read_all(words: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[Command]:
    yield _read(words, parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                yield from _read_all((*words, name), subparser)


def _read(words: tuple[str, ...], parser: argparse.ArgumentParser) -> Command:
    commands = {}
    arguments = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = {choice.dest: choice.help or "" for choice in action._choices_actions}
        else:
            arguments.append(_argument(action, parser))
    return Command(words, tuple(arguments), commands)


def _argument(action: argparse.Action, parser: argparse.ArgumentParser) -> Argument:
    has_value = action.nargs != 0
    metavar = action.metavar if has_value and isinstance(action.metavar, str) else ""
    kind = KINDS[metavar] if has_value else ""
    if action.dest == "source":
        kind = "source"
    repeats = action.nargs == "*" or isinstance(action, argparse._AppendAction)
    # --help ends the command whatever else there is.
    excluded = set() if repeats else set(action.option_strings)
    for group in parser._mutually_exclusive_groups:
        if action in group._group_actions:
            excluded.update(name for other in group._group_actions for name in other.option_strings)
    help_ = (action.help or "") % {**vars(action), "prog": "papr-hook"}
    return Argument(tuple(action.option_strings), metavar, kind, help_, tuple(sorted(excluded)), repeats)
