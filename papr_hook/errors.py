"""The exceptions that a person gets to see, all of them one line long."""

from __future__ import annotations

from .diagnostics import Diagnostic


class PaprHookError(Exception):
    """Something that papr-hook cannot go on from; str() is one line for a person."""


class InputError(PaprHookError):
    """A document that is not a domain definition that libvirt would take.

    Arguments: what is wrong; the line of the input that it is on, where there is one.
    """

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what if line is None else f"line {line}: {what}")
        self.line = line


class LayoutError(PaprHookError):
    """A layout rule that no layout of this guest can meet.

    Args:
        diagnostic: which rule, and why no layout meets it.
    """

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class ConfError(PaprHookError):
    """A configuration file or setting that cannot be used."""


class LibvirtError(PaprHookError):
    """libvirt could not be reached, or refused what it was asked."""


class SetupError(PaprHookError):
    """The gateway, or the files of papr-hook, could not be set up or removed."""
