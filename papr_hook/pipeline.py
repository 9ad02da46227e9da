"""The one way through: bytes, domain, layout, domain, bytes. Every caller goes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import domainxml
from .config import Config
from .errors import LayoutError
from .host import topology
from .layout import check, compute, endpoints, memlock
from .model import Guest, HostTopology, Layout


@dataclass(frozen=True)
class Analysis:
    """A definition and what was found.

    domain: as read; its guest is None when it is not a pseries guest. policy: the host's. facts:
    what the host said. spares: the empty vPHBs that it should have. kept: it, or the host, asked
    for no layout. host_arch: see domain.read.
    """

    domain: domainxml.Domain
    config: Config
    topology: HostTopology
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
        return check.check(self.guest, self.spares, self.topology, self.config.incomplete_pe)

    def apply_layout(self) -> tuple[bytes, Layout | None]:
        """Its bytes with the layout in them, and the layout; None where none was made.

        The layout's warnings are all that a person should know of it. Raises LayoutError when the
        contract, or the policy for endpoints, cannot be met.
        """
        if self.guest is None:
            return self.domain.data, None
        whole = self._completed()
        assert whole.guest is not None
        made = compute.layout(whole.guest, self.spares, whole.topology)
        data = domainxml.write(whole.domain, made)
        return data, replace(made, warnings=(*made.warnings, *_warnings(whole, made)))

    def _completed(self) -> Analysis:
        """The definition with its endpoints whole, as far as the policy and the host allow it."""
        assert self.guest is not None
        parts = endpoints.missing_members(self.guest, self.topology)
        if parts and self.config.incomplete_pe == "refuse":
            raise LayoutError(
                3, f"{parts[0].device.name} {parts[0]}; pass those through too, or set incomplete_pe = add"
            )
        beside = [(part.position, source) for part in parts for source in reversed(endpoints.can_be_added(part))]
        if not beside or self.config.incomplete_pe != "add":
            return self
        found = domainxml.read(domainxml.with_hostdevs(self.domain, beside), self.host_arch)
        assert found.guest is not None
        return replace(
            self,
            domain=found,
            topology=topology.read_topology(found.guest, self.config, self.topology.hostdev_networks),
        )


def analyze(
    data: bytes, config: Config, host_arch: str | None = None, networks: frozenset[str] = frozenset()
) -> Analysis:
    """Read a definition and ask the host about it.

    data: the definition; policy: the host's; host_arch: see domain.read; networks: see host.facts_for. Raises
    InputError.
    """
    found = domainxml.read(data, host_arch)
    if found.guest is None:
        return Analysis(found, config, HostTopology(), config.spares, False)
    guest = found.guest
    return Analysis(
        found,
        config,
        topology.read_topology(guest, config, networks),
        config.spares if guest.spares is None else guest.spares,
        (guest.mode or config.mode) == "keep",
        host_arch,
    )


def _warnings(whole: Analysis, made: Layout) -> list[str]:
    """What a person should know of the guest's endpoints and of what its layout costs."""
    guest, topology = whole.guest, whole.topology
    assert guest is not None
    found = [f"{part.device.name} {part}" for part in endpoints.missing_members(guest, topology)]
    found += [f"{device.name}: {text}" for device, text in endpoints.strangers(guest, topology)]
    over = memlock.over_hard_limit(guest, topology, len(made.phbs))
    return found + ([over] if over is not None else [])
