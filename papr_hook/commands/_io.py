"""Where a command reads and writes."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from typing import BinaryIO, TextIO

from ..errors import PaprHookError


class OutputError(PaprHookError):
    """Standard output cannot be written."""


@dataclass(frozen=True)
class Io:
    """The standard input and output of a command. Messages go to sys.stderr."""

    stdin: BinaryIO
    stdout: TextIO

    def print(self, *lines: str) -> None:
        """Write lines to standard output.

        Raises:
            OutputError: They cannot be written.
            BrokenPipeError: The reader has closed the pipe.
        """
        self.write("".join(f"{line}\n" for line in lines))

    def write(self, output: str | bytes) -> None:
        """Write output to standard output, bytes unchanged if it takes bytes. Raises what print() raises."""
        try:
            if isinstance(output, str):
                self.stdout.write(output)
            elif isinstance(self.stdout, io.TextIOWrapper):
                self.stdout.flush()
                self.stdout.buffer.write(output)
            else:
                self.stdout.write(output.decode("utf-8", "replace"))
            self.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from None

    def warn(self, text: str) -> None:
        """Write a line to standard error, if that is open."""
        self.warn_open(f"{text}\n")

    def warn_open(self, text: str) -> None:
        """Write text to standard error, if that is open, and leave its line open."""
        # print() would write to standard output if sys.stderr is None.
        if sys.stderr is not None:
            with contextlib.suppress(OSError):
                print(text, end="", file=sys.stderr, flush=True)
