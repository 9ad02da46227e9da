"""Which calls of a client are rewritten, and how."""

from __future__ import annotations

from collections.abc import Mapping

from .protocol import PROGRAM, VERSION, Packet, Procedure, Type
from .rewrite_device import rewrite_attach, rewrite_attach_with_flags, rewrite_update
from .rewrite_domain import (
    rewrite_autostart,
    rewrite_first_string,
    rewrite_second_string,
    rewrite_snapshot_delete,
    rewrite_snapshot_revert,
    rewrite_start,
    rewrite_start_with_flags,
)
from .steps import Call, ForwardInTwo, LoadConfig, LockRequest, Log, RefusalError, Rewrite, Rewriter, UpstreamError

__all__ = [
    "REWRITES",
    "Call",
    "ForwardInTwo",
    "LockRequest",
    "Log",
    "RefusalError",
    "Rewrite",
    "UpstreamError",
    "start_rewrite",
]

REWRITES: Mapping[int, Rewriter] = {
    Procedure.DOMAIN_ATTACH_DEVICE: rewrite_attach,
    Procedure.DOMAIN_ATTACH_DEVICE_FLAGS: rewrite_attach_with_flags,
    Procedure.DOMAIN_CREATE: rewrite_start,
    Procedure.DOMAIN_CREATE_WITH_FILES: rewrite_start_with_flags,
    Procedure.DOMAIN_CREATE_WITH_FLAGS: rewrite_start_with_flags,
    Procedure.DOMAIN_CREATE_XML: rewrite_first_string,
    Procedure.DOMAIN_CREATE_XML_WITH_FILES: rewrite_first_string,
    Procedure.DOMAIN_DEFINE_XML: rewrite_first_string,
    Procedure.DOMAIN_DEFINE_XML_FLAGS: rewrite_first_string,
    Procedure.CONNECT_DOMAIN_XML_TO_NATIVE: rewrite_second_string,
    Procedure.DOMAIN_SET_AUTOSTART: rewrite_autostart,
    Procedure.DOMAIN_SET_AUTOSTART_ONCE: rewrite_autostart,
    Procedure.DOMAIN_UPDATE_DEVICE_FLAGS: rewrite_update,
    Procedure.DOMAIN_REVERT_TO_SNAPSHOT: rewrite_snapshot_revert,
    Procedure.DOMAIN_SNAPSHOT_DELETE: rewrite_snapshot_delete,
}
"""How the calls are rewritten; procedures.py says for every procedure what is done and why."""


def start_rewrite(packet: Packet, load_config: LoadConfig, log: Log) -> Rewrite | None:
    """Return the rewrite of a client's packet, or None to forward it unchanged.

    Args:
        packet: The packet.
        load_config: Reads the host's settings.
        log: Writes to the journal.
    """
    if (packet.program, packet.version) != (PROGRAM, VERSION) or packet.type not in (Type.CALL, Type.CALL_WITH_FDS):
        return None
    rewriter = REWRITES.get(packet.procedure)
    return None if rewriter is None else rewriter(packet.payload, load_config, log)
