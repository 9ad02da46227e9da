"""Decide on a call of the qemu hook: refuse a non-compliant cold start, let everything else through.

What libvirt runs when, and what it makes of the answer, is in libvirt's docs/hooks.rst and its
src/qemu/qemu_process.c. Most starts comply, and libvirt waits for each module: what a start that does not comply
needs is in refusal.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from .. import journal, pipeline
from ..config import STATE_DIR, Config, load_config
from ..domainxml.text import MAX_BYTES
from ..errors import PaprHookError
from ..layout.check import complies
from . import migration_marks

TYPE_CHECKING = False  # not from typing: libvirt waits for each module
if TYPE_CHECKING:
    from typing import BinaryIO

GO_ON = 0
REFUSE = 100
"""Not 1, because a failing interpreter also exits with 1. hooks/qemu maps 100 to 1."""


def main(argv: Sequence[str], stdin: BinaryIO) -> int:
    """Answer one call of libvirt.

    Args:
        argv: GUEST OPERATION SUB-OPERATION EXTRA.
        stdin: the domain XML.

    Returns:
        REFUSE for a cold start that is refused; otherwise GO_ON, whatever goes wrong.
    """
    guest, operation, suboperation = argv[:3] if len(argv) > 2 else ("", "", "")
    try:
        if operation in ("migrate", "restore") and suboperation == "begin":
            _mark(guest, load_config())
        elif operation == "prepare" and suboperation == "begin":
            return _answer_start(guest, stdin.read(MAX_BYTES + 1), load_config())
    except PaprHookError as error:
        _report(guest, f"{error}; starting it unchanged")
    except Exception as error:  # no fault of papr-hook's may keep a guest from starting
        _report(guest, f"unexpected {type(error).__name__}: {error}; starting it unchanged")
    return GO_ON


def run() -> int:
    """Run the hook as hooks/qemu does, and return the exit status.

    libvirt runs the hook for qemu:///session too, as the user. The host's rules are not for a user's own guests, nor
    for libguestfs's appliances.
    """
    if sys.argv[2:4] == ["doctor", "load"]:  # papr-hook's doctor asks whether all modules can be loaded
        from . import refusal

        refusal.load_helper()
        return GO_ON
    return main(sys.argv[1:], sys.stdin.buffer) if os.geteuid() == 0 else GO_ON


def _mark(guest: str, config: Config) -> None:
    try:
        migration_marks.mark(config.libvirt_run_dir, guest)
    except OSError as error:
        where = config.libvirt_run_dir / STATE_DIR
        journal.log(journal.WARNING, f"guest '{guest}': {where}: {error.strerror}; nothing is refused meanwhile")


def _answer_start(guest: str, data: bytes, config: Config) -> int:
    """Return the answer to a guest's start, which may be a cold one or not."""
    arrives = migration_marks.consume(config.libvirt_run_dir, guest)
    analysis = pipeline.analyze(data, config)
    violations = analysis.violations()
    if complies(violations):
        return GO_ON
    from .refusal import Start, judge

    is_refused, text = judge(Start(guest, data, arrives), analysis, violations)
    _report(guest, text)
    return REFUSE if is_refused else GO_ON


def _report(guest: str, text: str) -> None:
    """Tell the client of a refused start, through libvirt, and the journal."""
    line = " ".join(f"guest '{guest}': {text}".split())
    if sys.stderr is not None:  # the hook may run with its stderr closed
        with contextlib.suppress(OSError):
            print(f"papr-hook: {line}", file=sys.stderr)
    journal.log(journal.WARNING, line)
