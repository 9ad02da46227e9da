"""Judge a start that does not comply: whether it is refused, and what the user has to do.

libvirt keeps the guest locked while a hook runs, so nothing here calls libvirt: redefining the guest is left to a
process of its own (redefine.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .. import pipeline
from ..config import STATE_DIR, Config, OnNoncompliantStart
from ..diagnostics import Diagnostic, Rule
from ..domainxml.text import parse
from ..errors import LayoutError
from ..virt import store
from . import migration_marks

HOOK_PID = "PAPR_HOOK_PID"
"""The environment variable in which hooks/qemu passes the process that libvirt waits for: itself."""

_KEEP = "to start it as it is, set mode='keep' (papr-hook(8))"


@dataclass(frozen=True)
class Start:
    """A start that libvirt asks the hook about.

    guest: the guest's name. data: the domain XML that it starts with. arrives: whether it is being migrated in or
    restored.
    """

    guest: str
    data: bytes
    arrives: bool


def judge(start: Start, analysis: pipeline.Analysis, violations: Sequence[Diagnostic]) -> tuple[bool, str]:
    """Judge a start that does not comply, and begin to repair the guest if it is refused.

    Args:
        start: the start.
        analysis: what is known about its domain XML.
        violations: what breaks the rules, at least one error.

    Returns:
        Whether the start is refused, and what the user is told.
    """
    config = analysis.config
    defined = store.read_domain_xml(config.domain_dir, start.guest)
    exemption = _find_exemption(start, defined, config)
    if exemption is not None:
        return False, f"does not comply, but {exemption}; starting it unchanged"
    reason = _summarize(violations)
    if config.on_noncompliant_start is OnNoncompliantStart.WARN:
        return False, f"does not comply, but on_noncompliant_start = warn: {reason}"
    return True, f"not started: {reason}; {_start_repair(start, defined, analysis)}"


def load_helper() -> None:
    """Load what the helper process needs: libvirt-python takes long, and may be in a directory that only site knows."""
    if sys.flags.no_site:
        import site

        site.main()
    from . import redefine  # noqa: F401


def _find_exemption(start: Start, defined: bytes | None, config: Config) -> str | None:
    """Return why a start is not refused, or None for a cold start."""
    if start.arrives:
        return "it is being migrated in or restored with that layout"
    if defined is not None and store.has_run(start.data) and not store.has_run(defined):
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


def _start_repair(start: Start, defined: bytes | None, analysis: pipeline.Analysis) -> str:
    """Start the helper that lays out the guest, if it can be, and return what the user has to do."""
    try:
        analysis.apply_layout()
    except LayoutError as error:
        return f"it cannot be laid out: {error}; {_KEEP}"
    if defined is None or not store.has_same_layout(start.data, defined):
        return f"it starts from a file: run 'papr-hook layout -i FILE' and create it again; {_KEEP}"
    load_helper()
    from .redefine import Helper, RefusedGuest, redefine_after_exit

    config = analysis.config
    autostart = store.read_autostart(config.domain_dir, start.guest)
    uuid = parse(start.data).getroot().findtext("uuid", "").strip()
    hook = int(os.environ.get(HOOK_PID) or os.getpid())
    helper = redefine_after_exit(RefusedGuest(start.guest, uuid, autostart, defined), config, hook)
    if helper is Helper.CONNECTED:
        return f"its domain XML is being laid out: start it again in a moment; {_KEEP}"
    if helper is Helper.WAITING and autostart is not store.Autostart.NEVER:
        return f"it is laid out and started once libvirt serves clients; {_KEEP}"
    return f"run 'papr-hook adopt {start.guest}' and start it again; {_KEEP}"
