"""The completion for zsh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .arguments import Argument, Command

_HEAD = """\
#compdef papr-hook
# Completion of papr-hook for zsh. 'python3 -m completion zsh' makes it: do not edit.

"""

_TAIL = r"""_papr-hook-guests() {
    local uri=${(Q)opt_args[-c]:-${(Q)opt_args[--connect]}} expl
    local -a guests
    [[ -n $uri ]] || uri=$(sed -n 's/^[[:blank:]]*uri[[:blank:]]*=[[:blank:]]*//p' /etc/papr-hook.conf 2>/dev/null)
    guests=(${(f)"$(timeout 3 virsh -q -r -c ${uri:-qemu:///system} list --all --name </dev/null 2>/dev/null)"})
    _wanted guests expl guest compadd -a guests
}

_papr-hook-uris() {
    local expl
    _wanted uris expl 'libvirt connection URI' compadd qemu:///system qemu:///session
}

_papr-hook-source() {
    if (( $+opt_args[-c] + $+opt_args[--connect] + $+opt_args[--watch] )); then
        _papr-hook-guests
    else
        _files
    fi
}

_papr-hook-files_guests() {
    _alternative 'guests:guest:_papr-hook-guests' 'files:file:_files'
}

# The file is a function that zsh loads, or it is read by a shell.
if [[ $funcstack[1] == _papr-hook ]]; then
    _papr-hook "$@"
else
    compdef _papr-hook papr-hook
fi
"""

_ACTIONS = {"": " ", "files": "_files", "directories": "_files -/"}
"""How zsh completes a kind; the others have a function of their own."""


def script(commands: Iterable[Command]) -> str:
    """Return the completion for zsh."""
    return _HEAD + "".join(f"{line}\n" for command in commands for line in _function(command)) + _TAIL


def _function(command: Command) -> Iterator[str]:
    """Yield the function that completes a command."""
    name = "-".join(("_papr-hook", *command.words))
    yield f"{name}() {{"
    if command.commands:
        yield "    local curcontext=$curcontext context state state_descr line ret=1"
        yield "    local -A opt_args"
        yield "    local -a commands"
        yield "    commands=("
        yield from (f"        {_quote(f'{word}:{summary}')}" for word, summary in command.commands.items())
        yield "    )"
    yield f"    _arguments -s{' -C' if command.commands else ''} \\"
    specs = [_option(argument) if argument.names else _positional(argument) for argument in command.arguments]
    if command.commands:
        specs += ["': :->command'", "'*:: :->arguments'"]
    yield from (f"        {spec} \\" for spec in specs[:-1])
    yield f"        {specs[-1]}{' && ret=0' if command.commands else ''}"
    if command.commands:
        yield "    case $state in"
        yield "    command) _describe -t commands command commands && ret=0 ;;"
        yield "    arguments)"
        yield f"        (( $+functions[{name}-$words[1]] )) && {name}-$words[1] && ret=0"
        yield "        ;;"
        yield "    esac"
        yield "    return ret"
    yield "}"
    yield ""


def _option(argument: Argument) -> str:
    """Return an option as _arguments takes it."""
    if "--help" in argument.names:
        excluded = "(- : *)"
    else:
        excluded = f"({' '.join(argument.excluded)})" if argument.excluded else ""
    start = _quote(excluded + "*" * argument.repeats) if excluded or argument.repeats else ""
    # The value may be in the word of the option, or in the next.
    suffixes = ("=", "+") if argument.metavar else ("", "")
    options = [name + suffixes[not name.startswith("--")] for name in argument.names]
    names = f"{{{','.join(options)}}}" if len(options) > 1 else options[0]
    help_ = argument.help.replace("[", r"\[").replace("]", r"\]")
    return f"{start}{names}{_quote(f'[{help_}]{_value(argument)}')}"


def _positional(argument: Argument) -> str:
    """Return a positional argument as _arguments takes it."""
    return _quote(("*" if argument.repeats else "") + (_value(argument) or ": : "))


def _value(argument: Argument) -> str:
    """Return the part of a specification that completes a value, "" for an option without one."""
    if not argument.metavar:
        return ""
    action = _ACTIONS.get(argument.kind, f"_papr-hook-{argument.kind}")
    return f":{argument.metavar}:{action}"


def _quote(text: str) -> str:
    """Return a text as a word of the shell."""
    return "'" + text.replace("'", r"'\''") + "'"
