"""The one way through: bytes, domain, layout, domain, bytes. Every caller goes it."""

from __future__ import annotations

from dataclasses import dataclass

from . import check, domain, host, layout
from .model import Guest, HostFacts, Layout
from .policy import Policy


@dataclass(frozen=True)
class Judged:
    """A definition and what was found.

    domain: as read; its guest is None when it is not a pseries guest. facts: what the host said.
    spares: the empty vPHBs that it should have. kept: it, or the host, asked for no layout.
    """

    domain: domain.Domain
    facts: HostFacts
    spares: int
    kept: bool

    @property
    def guest(self) -> Guest | None:
        """The guest to lay out; None for one that is not to be."""
        return None if self.kept else self.domain.guest

    def violations(self) -> tuple[check.Violation, ...]:
        """Where it breaks the contract; empty for one that is not to be laid out."""
        if self.guest is None:
            return ()
        return check.check(self.guest, self.spares, self.facts)

    def laid_out(self) -> tuple[bytes, Layout | None]:
        """Its bytes with the layout in them, and the layout; None where none was made.

        Raises LayoutError when the contract cannot be met.
        """
        if self.guest is None:
            return self.domain.data, None
        made = layout.layout(self.guest, self.spares, self.facts)
        return domain.write(self.domain, made), made


def judge(data: bytes, policy: Policy, host_arch: str | None = None) -> Judged:
    """Read a definition and ask the host about it.

    data: the definition; policy: the host's; host_arch: see domain.read. Raises InputError.
    """
    found = domain.read(data, host_arch)
    if found.guest is None:
        return Judged(found, HostFacts(), policy.spares, False)
    guest = found.guest
    return Judged(
        found,
        host.facts_for(guest, policy),
        policy.spares if guest.spares is None else guest.spares,
        (guest.mode or policy.mode) == "keep",
    )
