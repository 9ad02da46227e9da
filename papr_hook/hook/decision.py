"""The qemu hook: it judges the guest that is about to start, and hinders nothing else.

What libvirt runs when, and what it makes of the answer, is in libvirt's docs/hooks.rst and its
src/qemu/qemu_process.c. libvirt holds the guest while a hook runs, so nothing here talks to it:
what has to be defined anew is left to a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO, NoReturn, TextIO

from .. import journal, pipeline
from ..config import Config, load_config
from ..diagnostics import Diagnostic, Rule
from ..domainxml.text import MAX_BYTES
from ..errors import LayoutError, PaprHookError
from ..layout.check import complies
from ..virt import store
from . import migration_marks

GO_ON = 0
REFUSE = 100
"""Not 1, which a Python that cannot even start would say too; hooks/qemu makes it 1."""

PID = "PAPR_HOOK_PID"
"""The environment variable in which hooks/qemu says which process libvirt waits for."""


def main(argv: Sequence[str], stdin: BinaryIO, stdout: TextIO) -> int:
    """Answer one call of libvirt.

    argv: GUEST OPERATION SUB-OPERATION EXTRA; stdin: the domain XML; stdout: what the guest
    would be laid out as, where that differs. Returns REFUSE for a cold start that is refused,
    0 otherwise, whatever goes wrong.
    """
    guest, operation, suboperation = (*argv, "", "", "")[:3]
    try:
        if operation in ("migrate", "restore") and suboperation == "begin":
            migration_marks.note(load_config().libvirt_run_dir, guest)
        elif operation == "prepare" and suboperation == "begin":
            return _prepare(guest, stdin.read(MAX_BYTES + 1), load_config(), stdout)
    except PaprHookError as error:
        _say(guest, f"{error}; the guest goes on as it is")
    except Exception as error:  # whatever it is, the guest must not suffer for it
        _say(guest, f"unexpected {type(error).__name__}: {error}; the guest goes on as it is")
    return GO_ON


def run() -> NoReturn:
    """What hooks/qemu starts."""
    status = main(sys.argv[1:], sys.stdin.buffer, sys.stdout)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.exit(status)


def _prepare(guest: str, data: bytes, config: Config, stdout: TextIO) -> int:
    arriving = migration_marks.forget(config.libvirt_run_dir, guest)
    analysis = pipeline.analyze(data, config)
    violations = analysis.violations()
    impossible = _print_laid_out(analysis, stdout)
    if complies(violations):
        return GO_ON
    defined = store.definition(config.domain_dir, guest)
    why_not = _brings_a_state(guest, data, defined, config, arriving)
    if why_not is not None:
        _say(guest, f"does not comply, but {why_not}; it goes on")
        return GO_ON
    reason = _reason(violations)
    if config.on_noncompliant_start == "warn":
        _say(guest, f"does not comply, and starts all the same (on_noncompliant_start = warn): {reason}")
        return GO_ON
    _say(guest, f"not started: {reason}; {_what_now(guest, data, defined, config, impossible)}")
    return REFUSE


def _print_laid_out(analysis: pipeline.Analysis, stdout: TextIO) -> LayoutError | None:
    """Print the definition laid out, for pipes: libvirt ignores what prepare prints."""
    try:
        result = analysis.apply_layout()
    except LayoutError as error:
        return error
    if result.changed:
        stdout.write(result.data.decode("utf-8", "replace"))
    return None


def _brings_a_state(guest: str, data: bytes, defined: bytes | None, config: Config, arriving: bool) -> str | None:
    """Why a start is not a cold one, so that its layout is none of the hook's business."""
    if arriving:
        return "it arrives with the state of that layout"
    if defined is not None and store.has_run(data) and not store.has_run(defined):
        return "it comes back from a saved state with that layout"
    if store.has_memory_of(config.snapshot_dir, guest, data):
        return "it has a memory snapshot of that layout"
    return None


def _reason(violations: Sequence[Diagnostic]) -> str:
    """Return the first error, one about isolation if there is any, and how many more there are."""
    errors = [violation for violation in violations if violation.is_error]
    first = next((violation for violation in errors if violation.rule is Rule.ISOLATION), errors[0])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{first.message}{more}"


def _what_now(guest: str, data: bytes, defined: bytes | None, config: Config, impossible: LayoutError | None) -> str:
    """Start the repair where there is one, and tell what is left to do."""
    keep = "to start it as it is, give it mode='keep' (papr-hook(8))"
    if impossible is not None:
        return f"it cannot be laid out, {impossible}; {keep}"
    if defined is None or not store.same_layout(data, defined):
        return f"it starts from a file, so lay that out with 'papr-hook layout -i FILE' and create it again; {keep}"
    # This loads libvirt-python, which no guest that complies should wait for.
    from .redefine import define_later

    laid_out = pipeline.analyze(defined, config).apply_layout().data
    waits_for = int(os.environ.get(PID) or os.getpid())
    if define_later(laid_out, guest, config.uri, waits_for):
        return f"its definition is being laid out, so start it again; {keep}"
    return f"lay it out with 'papr-hook adopt {guest}' and start it again; {keep}"


def _say(guest: str, text: str) -> None:
    """Tell the client of a refused start, and the journal."""
    line = f"guest '{guest}': {text}"
    print(f"papr-hook: {line}", file=sys.stderr)
    journal.log(journal.WARNING, line)
