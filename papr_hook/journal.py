"""The journal: one line for each message, whatever text a client or a file contributed to it.

The host's journal, or its syslog daemon, has the lines under the name papr-hook: `journalctl -t papr-hook`.
"""

from __future__ import annotations

import contextlib
import syslog

ERROR = syslog.LOG_ERR
WARNING = syslog.LOG_WARNING
NOTICE = syslog.LOG_NOTICE
INFO = syslog.LOG_INFO

MAX_CHARACTERS = 300
"""The longest line; clients choose the names of guests and devices, and must not fill the journal with them."""

_CUT = "..."
_MAX_READ = 16 * MAX_CHARACTERS
"""The characters of a text that are looked at, so that a long text costs no time."""


def log(priority: int, text: str) -> None:
    """Write one line to the journal.

    A message that cannot be written is lost: no caller fails because of its journal.

    Args:
        priority: ERROR, WARNING, NOTICE or INFO, or another priority of syslog(3).
        text: the message; see one_line().
    """
    # syslog raises OSError where it cannot connect, ValueError for a NUL, UnicodeError for a lone surrogate.
    with contextlib.suppress(OSError, ValueError):
        syslog.openlog("papr-hook", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(priority, one_line(text))


def one_line(text: str) -> str:
    """Return a text as one printable line of at most MAX_CHARACTERS characters.

    journalctl shows a line with a control character as "blob data", so such characters become spaces.

    Args:
        text: the message, with any characters.

    Returns:
        The text with single spaces for white space and control characters; "..." ends a line that was cut.
    """
    printable = "".join(character if character.isprintable() else " " for character in text[:_MAX_READ])
    line = " ".join(printable.split())
    if len(line) <= MAX_CHARACTERS and len(text) <= _MAX_READ:
        return line
    return line[: MAX_CHARACTERS - len(_CUT)] + _CUT
