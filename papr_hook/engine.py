"""The one way through: bytes, domain, layout, domain, bytes. Every caller goes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import check, domain, endpoints, host, layout, memlock
from .errors import LayoutError
from .model import Guest, HostFacts, Layout
from .policy import Policy


@dataclass(frozen=True)
class Judged:
    """A definition and what was found.

    domain: as read; its guest is None when it is not a pseries guest. policy: the host's. facts:
    what the host said. spares: the empty vPHBs that it should have. kept: it, or the host, asked
    for no layout. host_arch: see domain.read.
    """

    domain: domain.Domain
    policy: Policy
    facts: HostFacts
    spares: int
    kept: bool
    host_arch: str | None = None

    @property
    def guest(self) -> Guest | None:
        """The guest to lay out; None for one that is not to be."""
        return None if self.kept else self.domain.guest

    def violations(self) -> tuple[check.Violation, ...]:
        """Where it breaks the contract; empty for one that is not to be laid out."""
        if self.guest is None:
            return ()
        return check.check(self.guest, self.spares, self.facts, self.policy.complete_pe)

    def laid_out(self) -> tuple[bytes, Layout | None]:
        """Its bytes with the layout in them, and the layout; None where none was made.

        The layout's warnings are all that a person should know of it. Raises LayoutError when the
        contract, or the policy for endpoints, cannot be met.
        """
        if self.guest is None:
            return self.domain.data, None
        whole = self._completed()
        assert whole.guest is not None
        made = layout.layout(whole.guest, self.spares, whole.facts)
        data = domain.write(whole.domain, made)
        return data, replace(made, warnings=(*made.warnings, *_warnings(whole, made)))

    def _completed(self) -> Judged:
        """The definition with its endpoints whole, as far as the policy and the host allow it."""
        assert self.guest is not None
        parts = endpoints.missing_members(self.guest, self.facts)
        if parts and self.policy.complete_pe == "refuse":
            raise LayoutError(3, f"{parts[0].device.name} {parts[0]}; pass those through too, or set complete_pe = add")
        beside = [(part.position, source) for part in parts for source in reversed(endpoints.can_be_added(part))]
        if not beside or self.policy.complete_pe != "add":
            return self
        found = domain.read(domain.with_hostdevs(self.domain, beside), self.host_arch)
        assert found.guest is not None
        return replace(self, domain=found, facts=host.facts_for(found.guest, self.policy, self.facts.hostdev_networks))


def judge(data: bytes, policy: Policy, host_arch: str | None = None, networks: frozenset[str] = frozenset()) -> Judged:
    """Read a definition and ask the host about it.

    data: the definition; policy: the host's; host_arch: see domain.read; networks: see host.facts_for. Raises
    InputError.
    """
    found = domain.read(data, host_arch)
    if found.guest is None:
        return Judged(found, policy, HostFacts(), policy.spares, False)
    guest = found.guest
    return Judged(
        found,
        policy,
        host.facts_for(guest, policy, networks),
        policy.spares if guest.spares is None else guest.spares,
        (guest.mode or policy.mode) == "keep",
        host_arch,
    )


def _warnings(whole: Judged, made: Layout) -> list[str]:
    """What a person should know of the guest's endpoints and of what its layout costs."""
    guest, facts = whole.guest, whole.facts
    assert guest is not None
    found = [f"{part.device.name} {part}" for part in endpoints.missing_members(guest, facts)]
    found += [f"{device.name}: {text}" for device, text in endpoints.strangers(guest, facts)]
    over = memlock.over_hard_limit(guest, facts, len(made.phbs))
    return found + ([over] if over is not None else [])
