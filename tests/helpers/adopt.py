"""papr-hook adopt, as tests run it."""

from __future__ import annotations

from typing import Protocol

from .cli import Ran
from .paths import GOLDEN

PC = (GOLDEN / "pc-shaped-in.xml").read_bytes()
"""A guest that does not comply."""


class Adopt(Protocol):
    """Runs papr-hook adopt with a directory for backups."""

    def __call__(self, *arguments: str) -> Ran:
        """Run it with further arguments."""
