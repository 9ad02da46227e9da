"""The completion for bash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .arguments import Command

_HEAD = """\
# Completion of papr-hook for bash 4.4 and later. 'python3 -m completion bash' makes it: do not edit.
# shellcheck shell=bash disable=SC2034,SC2154 # _papr_hook declares the variables

# Set what a command takes: the commands that may follow, options, options with a value, each with the kind of the
# value, and the kinds of positional arguments, of which one with a + repeats.
_papr_hook_describe() {
    commands='' options='' values='' arguments=''
    case $1 in
"""

_TAIL = r"""
    esac
}

# Split the line at blanks only, up to the cursor. bash splits it at : and = too.
_papr_hook_split() {
    local rest=${COMP_LINE:0:COMP_POINT} piece i
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        if [[ $i -eq 0 || $rest == [[:blank:]]* ]]; then
            words+=('')
        fi
        rest=${rest#"${rest%%[![:blank:]]*}"}
        [[ $rest == "$piece"* ]] || piece=$rest # the cursor is in the word
        rest=${rest#"$piece"}
        words[-1]+=$piece
    done
    # What precedes the piece that bash replaces is no part of a reply.
    before=
    if [[ $piece == [:=] ]]; then
        before=${words[-1]}
    elif [[ -n $piece ]]; then
        before=${words[-1]%"$piece"}
    fi
}

# Print the guests of a host.
_papr_hook_guests() {
    [[ -n $uri ]] || uri=$(sed -n 's/^[[:blank:]]*uri[[:blank:]]*=[[:blank:]]*//p' /etc/papr-hook.conf 2>/dev/null)
    timeout 3 virsh -q -r -c "${uri:-qemu:///system}" list --all --name </dev/null 2>/dev/null | grep .
}

# Reply with the lines of standard input that start with the word, in a form that the shell reads back. With an
# argument, readline quotes them as file names.
_papr_hook_reply() {
    local line plain=$current raw=${1-}
    case $plain in
    [\'\"]*) plain=${plain:1} raw=yes ;;
    *) plain=${plain//\\/} ;;
    esac
    while IFS= read -r line; do
        [[ $line == "$plain"* ]] || continue
        [[ -n $raw ]] || printf -v line %q "$line"
        COMPREPLY+=("${line#"$before"}")
    done
    [[ -z ${1-} ]] || mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$plain")
}

# Set the kind of what is completed, from the words before it: the variables that _papr_hook declares.
_papr_hook_parse() {
    local last=$((${#words[@]} - 1)) count=0 i word value kinds
    current=${words[last]}
    _papr_hook_describe ''
    for ((i = 1; i < last; i++)); do
        word=${words[i]}
        if [[ $word != -* && -n $commands ]]; then
            path="${path:+$path }$word"
            _papr_hook_describe "$path"
        elif [[ $word != -* ]]; then
            ((++count))
        elif [[ " $values " == *" ${word%%=*}:"* ]]; then
            kind=$(_papr_hook_kind "${word%%=*}")
            value=${word#*=}
            if [[ $word != *=* ]]; then
                ((++i < last)) || return 0 # the value is completed
                value=${words[i]}
            fi
            [[ $kind != uris ]] || guest=yes uri=$value
        elif [[ $word == --watch ]]; then
            guest=yes
        fi
    done
    read -ra kinds <<<"$arguments"
    case $current in
    --*=*)
        kind=$(_papr_hook_kind "${current%%=*}")
        current=${current#*=} before=${before#*=}
        ;;
    -*) kind=options ;;
    *)
        kind=commands
        if [[ -z $commands ]]; then
            kind=${kinds[count]-}
            [[ ${kinds[-1]-} != *+ || -n $kind ]] || kind=${kinds[-1]}
        fi
        ;;
    esac
    kind=${kind%+}
}

_papr_hook_kind() {
    local kind=" $values"
    kind=${kind##*" $1:"}
    printf %s "${kind%% *}"
}

_papr_hook() {
    local words before current commands options values arguments path='' uri='' guest='' kind=''
    COMPREPLY=()
    _papr_hook_split
    _papr_hook_parse
    [[ $kind != source || -z $guest ]] || kind=guests
    case $kind in
    files | source) compopt -o default ;;
    directories) compopt -o dirnames ;;
    guests) _papr_hook_reply < <(_papr_hook_guests) ;;
    files_guests)
        compopt -o filenames
        _papr_hook_reply files < <(_papr_hook_guests)
        ;;
    uris) _papr_hook_reply <<<$'qemu:///system\nqemu:///session' ;;
    options | commands) _papr_hook_reply <<<"${!kind// /$'\n'}" ;;
    esac
}

complete -F _papr_hook papr-hook
"""


def script(commands: Iterable[Command]) -> str:
    """Return the completion for bash."""
    return _HEAD + "\n".join(line for command in commands for line in _describe(command)) + _TAIL


def _describe(command: Command) -> Iterator[str]:
    """Yield the branch of _papr_hook_describe for a command."""
    options = [argument for argument in command.arguments if argument.names]
    values = [f"{name}:{argument.kind}" for argument in options if argument.metavar for name in argument.names]
    kinds = [
        (argument.kind or "nothing") + "+" * argument.repeats for argument in command.arguments if not argument.names
    ]
    yield f"    '{' '.join(command.words)}')"
    yield from _assign("commands", command.commands)
    yield from _assign("options", (name for argument in options for name in argument.names))
    yield from _assign("values", values)
    yield from _assign("arguments", kinds)
    yield "        ;;"


def _assign(variable: str, words: Iterable[str]) -> Iterator[str]:
    text = " ".join(words)
    if text:
        yield f"        {variable}='{text}'"
