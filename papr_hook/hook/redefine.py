"""A process that defines a guest anew once the hook, and the start that it refused, are over.

libvirt waits for whatever holds a hook's descriptors, and holds the guest, and with a question
about it the list of all guests, until the hook is done. So the process gets a session of its own
and none of the hook's descriptors, connects while the hook still runs, and says its one word,
the definition, when the hook has gone: that comes before a client's next start.
"""

from __future__ import annotations

import os
import select

from .. import journal
from ..errors import PaprHookError
from ..virt.connection import connect

READY_SECONDS = 5.0
"""How long a hook waits for the process to be connected; it goes on without."""

GONE_SECONDS = 120.0
"""How long the process waits for the hook to go; libvirt sets no limit, but a day is too long."""


def define_later(definition: bytes, guest: str, uri: str, hook: int) -> bool:
    """Define a guest when the hook has gone.

    definition: what to define; guest: its name, for the journal; uri: libvirt's; hook: the
    process that libvirt waits for. Returns whether the process is connected and waiting.
    """
    try:
        gone = os.pidfd_open(hook)
    except OSError:
        return False
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _detach({gone, writer})
        _define(definition, guest, uri, gone, writer)
    os.close(writer)
    os.close(gone)
    os.waitpid(child, 0)
    ready = _readable(reader, READY_SECONDS) and os.read(reader, 1) == b"1"
    os.close(reader)
    return ready


def _detach(keep: set[int]) -> None:
    """Become a process that nobody waits for, with no descriptor but some."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    low = 3
    for descriptor in sorted(keep):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _define(definition: bytes, guest: str, uri: str, gone: int, ready: int) -> None:
    try:
        with connect(uri) as connection:
            os.write(ready, b"1")
            os.close(ready)
            if _readable(gone, GONE_SECONDS):
                connection.define(definition)
                journal.log(journal.NOTICE, f"guest '{guest}': laid out for its next start")
    except PaprHookError as error:
        journal.log(journal.ERROR, f"guest '{guest}': not laid out: {error}")
    except BaseException as error:
        text = f"guest '{guest}': unexpected {type(error).__name__}: {error}"
        journal.log(journal.ERROR, text)
    finally:
        os._exit(0)


def _readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])
