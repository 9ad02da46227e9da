"""Decide on a call of the qemu hook: refuse a non-compliant cold start, let everything else through.

What libvirt runs when, and what it makes of the answer, is in libvirt's docs/hooks.rst and its
src/qemu/qemu_process.c. libvirt keeps the guest locked while a hook runs, so nothing here calls libvirt: redefining
the guest is left to a process of its own (redefine.py).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .. import journal, pipeline
from ..config import STATE_DIR, Config, OnNoncompliantStart, load_config
from ..diagnostics import Diagnostic, Rule
from ..domainxml.text import MAX_BYTES, parse
from ..errors import LayoutError, PaprHookError
from ..layout.check import complies
from ..records import Record
from ..virt import store
from . import migration_marks

TYPE_CHECKING = False  # not from typing: libvirt waits for each module
if TYPE_CHECKING:
    from typing import BinaryIO

GO_ON = 0
REFUSE = 100
"""Not 1, because a failing interpreter also exits with 1. hooks/qemu maps 100 to 1."""

HOOK_PID = "PAPR_HOOK_PID"
"""The environment variable in which hooks/qemu passes the process that libvirt waits for: itself."""

_KEEP = "to start it as it is, set mode='keep' (papr-hook(8))"


@dataclass(frozen=True, eq=False, repr=False)
class _Start(Record):
    """A start that libvirt asks the hook about.

    guest: the guest's name. data: the domain XML that it starts with. defined: the domain XML that libvirt keeps for
    its next start, or None if it is transient.
    """

    guest: str
    data: bytes
    defined: bytes | None


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
    start = _Start(guest, data, store.read_domain_xml(config.domain_dir, guest))
    exemption = _find_exemption(start, config, arrives)
    if exemption is not None:
        _report(guest, f"does not comply, but {exemption}; starting it unchanged")
        return GO_ON
    reason = _summarize(violations)
    if config.on_noncompliant_start is OnNoncompliantStart.WARN:
        _report(guest, f"does not comply, but on_noncompliant_start = warn: {reason}")
        return GO_ON
    _report(guest, f"not started: {reason}; {_start_repair(start, analysis, config)}")
    return REFUSE


def _find_exemption(start: _Start, config: Config, arrives: bool) -> str | None:
    """Return why a start is not refused, or None for a cold start."""
    if arrives:
        return "it is being migrated in or restored with that layout"
    if start.defined is not None and store.has_run(start.data) and not store.has_run(start.defined):
        return "it resumes a saved state with that layout"
    if store.may_start_for_snapshot(config.snapshot_dir, start.guest, start.data):
        return "it may be a step of a snapshot's revert or deletion"
    if not migration_marks.can_be_kept(config.libvirt_run_dir, start.guest):
        return f"it may be a migration, because {config.libvirt_run_dir / STATE_DIR} cannot be written"
    return None


def _summarize(violations: Sequence[Diagnostic]) -> str:
    """Return the first error, one about isolation if there is any, and how many more there are."""
    errors = [violation for violation in violations if violation.is_error]
    first = next((violation for violation in errors if violation.rule is Rule.ISOLATION), errors[0])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{first.message}{more}"


def _start_repair(start: _Start, analysis: pipeline.Analysis, config: Config) -> str:
    """Start the helper that lays out the guest, if it can be, and return what the user has to do."""
    try:
        analysis.apply_layout()
    except LayoutError as error:
        return f"it cannot be laid out: {error}; {_KEEP}"
    if start.defined is None or not store.has_same_layout(start.data, start.defined):
        return f"it starts from a file: run 'papr-hook layout -i FILE' and create it again; {_KEEP}"
    # Imported late: loading libvirt-python is slow, and only a refusal needs it.
    if sys.flags.no_site:
        import site

        site.main()  # libvirt-python may be in a directory of the administrator's
    from .redefine import Helper, RefusedGuest, redefine_after_exit

    autostart = store.read_autostart(config.domain_dir, start.guest)
    uuid = parse(start.data).getroot().findtext("uuid", "").strip()
    hook = int(os.environ.get(HOOK_PID) or os.getpid())
    helper = redefine_after_exit(RefusedGuest(start.guest, uuid, autostart, start.defined), config, hook)
    if helper is Helper.CONNECTED:
        return f"its domain XML is being laid out: start it again in a moment; {_KEEP}"
    if helper is Helper.WAITING and autostart is not store.Autostart.NEVER:
        return f"it is laid out and started once libvirt serves clients; {_KEEP}"
    return f"run 'papr-hook adopt {start.guest}' and start it again; {_KEEP}"


def _report(guest: str, text: str) -> None:
    """Tell the client of a refused start, through libvirt, and the journal."""
    line = " ".join(f"guest '{guest}': {text}".split())
    if sys.stderr is not None:  # the hook may run with its stderr closed
        with contextlib.suppress(OSError):
            print(f"papr-hook: {line}", file=sys.stderr)
    journal.log(journal.WARNING, line)
