"""User-facing exceptions; str() is always one line."""

from __future__ import annotations

from .diagnostics import Diagnostic


class PaprHookError(Exception):
    """A failure that ends what papr-hook was asked to do."""


class InputError(PaprHookError):
    """Input that is not domain XML libvirt would accept.

    Args:
        what: What is wrong.
        line: The line of the input that it is on, or None if it is on no line.
    """

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what if line is None else f"line {line}: {what}")
        self.line = line


class LayoutError(PaprHookError):
    """A layout rule that no layout of the guest meets.

    Args:
        diagnostic: Which rule, and why.
    """

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class ConfError(PaprHookError):
    """A configuration file or setting that cannot be used."""


class LibvirtError(PaprHookError):
    """libvirt cannot be reached, or refuses a call."""


class SetupError(PaprHookError):
    """The gateway or the files of papr-hook cannot be set up or removed."""
