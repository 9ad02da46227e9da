"""The table of procedures against the libvirt of each release: a newer one must not have a procedure that it lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from papr_hook.gateway.procedures import NAMES
from tests.harness.booted_host import RELEASES

SYMBOL = re.compile(rb"\0xdr_remote_([a-z0-9_]+?)_(?:args|ret|msg)(?=\0)")
"""A function of libvirt's client library that encodes what a procedure gets, returns or announces."""


def procedures_of(root: Path) -> set[str]:
    """Return the names of the procedures that a release's libvirt has data for, which are nearly all."""
    (library,) = root.glob("usr/lib/*/libvirt.so.0")
    return {match.group(1).decode().upper() for match in SYMBOL.finditer(library.read_bytes())}


@pytest.mark.parametrize("release", RELEASES)
def test_every_procedure_is_in_the_table(roots: dict[str, Path], release: str) -> None:
    """Whoever adds a release decides what the gateway does with its new procedures."""
    found = procedures_of(roots[release])
    assert {"DOMAIN_CREATE_XML", "DOMAIN_ATTACH_DEVICE_FLAGS", "DOMAIN_EVENT_LIFECYCLE"} < found
    assert len(found) > 400
    assert found - set(NAMES) == set()
