"""Edit the setting of a libvirt daemon that moves its sockets behind the gateway."""

from __future__ import annotations

import re

from .host import RUN

MARK = b"# set by 'papr-hook gateway enable'"
SETTING = b'unix_sock_dir = "%s/upstream" %s\n' % (RUN.encode(), MARK)
_OTHER = re.compile(rb"^[ \t]*unix_sock_dir\b", re.MULTILINE)


def is_marked(text: bytes) -> bool:
    """Return whether a daemon's configuration has the line that with_upstream() adds."""
    return MARK in text


def is_set_otherwise(text: bytes) -> bool:
    """Return whether a configuration has a unix_sock_dir of its own."""
    return _OTHER.search(without_upstream(text)) is not None


def with_upstream(text: bytes) -> bytes:
    """Return a configuration with the daemon's sockets behind the gateway."""
    text = without_upstream(text)
    return text + (b"" if not text or text.endswith(b"\n") else b"\n") + SETTING


def without_upstream(text: bytes) -> bytes:
    """Return a configuration without the line that with_upstream() adds."""
    return b"".join(line for line in text.splitlines(True) if MARK not in line)
