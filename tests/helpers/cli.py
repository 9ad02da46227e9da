"""The command and the hook, called as functions, with what a person would see of them."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from papr_hook import cli


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit status, and what it printed."""

    status: int
    out: str
    err: str


def papr_hook(*argv: str, stdin: bytes = b"") -> Ran:
    """Run papr-hook with some arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            status = cli.main(argv, io.BytesIO(stdin), out)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return Ran(status, out.getvalue(), err.getvalue())


def one_line(text: str) -> bool:
    """Whether a text is exactly one line, and one that says something."""
    return text.endswith("\n") and len(text.splitlines()) == 1 and bool(text.strip())
