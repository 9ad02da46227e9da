"""Lay out generated domain XML without a host, and compare where its devices are."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from papr_hook import domainxml
from papr_hook.diagnostics import Diagnostic
from papr_hook.domainxml.write import write
from papr_hook.errors import InputError, LayoutError
from papr_hook.layout import check, compute
from papr_hook.model import Guest, Layout, PciAddress
from tests.helpers.generate import Case

ADDRESS = re.compile(r"(?<!<source>)<address type='pci'[^>]*/>")
"""The guest address of a generated device; that of a host device is directly below <source>."""


@dataclass(frozen=True)
class Done:
    """A case, and what became of it."""

    case: Case
    domain: domainxml.PseriesDomain
    guest: Guest
    spares: int
    layout: Layout
    data: bytes

    @property
    def violations(self) -> tuple[Diagnostic, ...]:
        """What is wrong with it before it is laid out."""
        return check.check(self.guest, self.spares, self.case.topology)

    @property
    def places(self) -> dict[tuple[str, str], PciAddress]:
        """The address of each device, by its kind and its identity or its place among its kind."""
        counts: Counter[str] = Counter()
        found = {}
        for device, address in zip(self.guest.devices, self.layout.addresses):
            counts[device.kind] += 1
            found[device.kind, device.identity or f"#{counts[device.kind]}"] = address
        return found


def read(data: bytes, case: Case) -> tuple[domainxml.PseriesDomain, Guest, int]:
    """Read domain XML: it, its guest, and the spares that it is to have."""
    found = domainxml.read(data, "ppc64le")
    assert isinstance(found, domainxml.PseriesDomain)
    return found, found.guest, case.spares if found.guest.spares is None else found.guest.spares


def lay_out(data: bytes, case: Case, previous: bytes | None = None) -> Done | None:
    """Lay domain XML out; None for what libvirt would not take, or what cannot be laid out."""
    try:
        found, guest, spares = read(data, case)
        made = compute.compute_layout(guest, spares, case.topology, _earlier(previous, case))
    except (InputError, LayoutError):
        return None
    return Done(case, found, guest, spares, made, write(found, made).data)


def _earlier(previous: bytes | None, case: Case) -> list[Guest]:
    try:
        return [read(previous, case)[1]] if previous is not None else []
    except InputError:
        return []


def without_addresses(text: str) -> str:
    """Return devices without their guest addresses, as clients write them that leave placement to libvirt."""
    return ADDRESS.sub("", text)
