"""The pipeline that all front ends share: parse domain XML, compute the layout, write it back."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from . import domainxml
from .config import Config, IncompletePe, Mode
from .diagnostics import Diagnostic, Name, Severity, error, warning
from .errors import InputError, LayoutError
from .host import topology
from .layout import check, endpoints
from .model import Guest, HostTopology, Layout
from .records import Record

TYPE_CHECKING = False  # not from typing: the hook waits for each module
if TYPE_CHECKING:
    from .layout.nic_names import NicMove

# The layout and the writing of it are imported late: most starts that the hook looks at comply and need neither.


@dataclass(frozen=True, eq=False, repr=False)
class Result(Record):
    """What a layout made of domain XML.

    Attributes:
        data: The domain XML with the layout, or the same bytes if nothing changed.
        layout: The layout, or None if the guest is not to be laid out.
        changed: Whether data differs from the domain XML that was analyzed.
        diagnostics: What the administrator should know about it; none of them is an error.
        moves: The network interfaces that get another address in the guest.
    """

    data: bytes
    layout: Layout | None
    changed: bool
    diagnostics: tuple[Diagnostic, ...] = ()
    moves: tuple[NicMove, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Analysis(Record):
    """Domain XML and what is known about it.

    Attributes:
        domain: The domain XML; its guest is None if it is not about a pseries guest.
        config: The host's settings.
        topology: What the host's sysfs and libvirt's files say about the guest's devices and networks.
        spares: The empty vPHBs that the guest should have.
        opted_out: Whether the domain XML or the settings ask for no layout.
        host_arch: The architecture of a guest whose domain XML names none, or None for this host's.
    """

    domain: domainxml.PseriesDomain | domainxml.OtherDomain
    config: Config
    topology: HostTopology
    spares: int
    opted_out: bool
    host_arch: str | None = None

    @property
    def guest(self) -> Guest | None:
        """The guest to lay out, or None if it is not to be laid out."""
        return None if self.opted_out else self.domain.guest

    def violations(self) -> tuple[Diagnostic, ...]:
        """Return what check finds, in the order of the domain XML; nothing if it is not to be laid out."""
        if self.guest is None:
            return ()
        return check.check(self.guest, self.spares, self.topology, self.config.incomplete_pe)

    @cached_property
    def lacks_place(self) -> bool:
        """Whether a device has no address that stays, so that an earlier domain XML of the guest would help."""
        from .layout.compute import lacks_place

        return self.guest is not None and lacks_place(self.guest, self.spares, self.topology)

    def apply_layout(self, previous: bytes | Sequence[bytes] | None = None) -> Result:
        """Compute the layout and write it into the domain XML.

        Args:
            previous: The domain XML that the guest had before. Of several, the later ones count only for devices that
                are not in the earlier ones. What cannot be read is ignored.

        Returns:
            The domain XML with the layout, and what the administrator should know about it.

        Raises:
            LayoutError: No layout of the guest meets a rule, or incomplete_pe forbids its endpoints.
        """
        from .domainxml.write import write
        from .layout.compute import compute_layout
        from .layout.nic_names import find_moves

        if self.opted_out or self.domain.guest is None:
            return Result(self.domain.data, None, False)
        domain, host = self._complete_endpoints(self.domain)
        earlier = self._read_previous(previous)
        made = compute_layout(domain.guest, self.spares, host, earlier)
        edited = write(domain, made)
        moves = find_moves(domain.guest, made, host, earlier[0] if earlier else None)
        found = _find_diagnostics(domain.guest, host, made)
        diagnostics = [*made.diagnostics, *found, *(move.diagnostic() for move in moves)]
        if edited.is_reformatted:
            diagnostics.append(warning(Name.REFORMATTED, "the whole domain XML was written again: see the difference"))
        return Result(edited.data, made, edited.data != self.domain.data, tuple(diagnostics), moves)

    def _read_previous(self, previous: bytes | Sequence[bytes] | None) -> list[Guest]:
        """Return the guests that earlier domain XMLs describe; nothing if no device lacks a place."""
        if not previous or not self.lacks_place:
            return []
        guests: list[Guest] = []
        for data in [previous] if isinstance(previous, bytes) else previous:
            with contextlib.suppress(InputError):
                guest = domainxml.read(data, self.host_arch).guest
                if guest is not None:
                    guests.append(guest)
        return guests

    def _complete_endpoints(self, domain: domainxml.PseriesDomain) -> tuple[domainxml.PseriesDomain, HostTopology]:
        """Return domain XML whose endpoints are complete, as far as incomplete_pe and the host allow it, and its host.

        Raises:
            LayoutError: incomplete_pe forbids incomplete endpoints.
        """
        parts = endpoints.missing_members(domain.guest, self.topology)
        if parts and self.config.incomplete_pe is IncompletePe.REFUSE:
            text = f"{parts[0]}; pass those through too, or set incomplete_pe = add"
            raise LayoutError(error(Name.INCOMPLETE_ENDPOINT, text, parts[0].device.name, parts[0].device.line))
        beside = [(part.position, source) for part in parts for source in endpoints.can_be_added(part)]
        if not beside or self.config.incomplete_pe is not IncompletePe.ADD:
            return domain, self.topology
        from .domainxml.write import with_hostdevs

        found = domainxml.read(with_hostdevs(domain, beside).data, self.host_arch)
        if found.guest is None:
            return domain, self.topology
        return found, topology.read_topology(found.guest, self.config, self.topology.hostdev_networks)


def analyze(
    data: bytes, config: Config, host_arch: str | None = None, hostdev_networks: frozenset[str] = frozenset()
) -> Analysis:
    """Read domain XML and what the host says about its devices.

    Args:
        data: The domain XML.
        config: The host's settings.
        host_arch: The architecture of a guest whose domain XML names none, or None for this host's.
        hostdev_networks: Networks that are known to hand out host devices, beside what the host's files say.

    Raises:
        InputError: libvirt would not accept the domain XML either.
    """
    found = domainxml.read(data, host_arch)
    if found.guest is None:
        return Analysis(found, config, HostTopology(), config.spares, False)
    guest = found.guest
    return Analysis(
        found,
        config,
        topology.read_topology(guest, config, hostdev_networks),
        config.spares if guest.spares is None else guest.spares,
        (guest.mode or config.mode) == Mode.KEEP,
        host_arch,
    )


def _find_diagnostics(guest: Guest, host: HostTopology, made: Layout) -> list[Diagnostic]:
    """Return what the administrator should know about the guest's endpoints and about the layout's cost."""
    from .layout.memlock import over_hard_limit

    found = [part.diagnostic(Severity.WARNING) for part in endpoints.missing_members(guest, host)]
    found += endpoints.unresolved_hostdevs(guest, host)
    over = over_hard_limit(guest, host, len(made.phbs))
    return found + ([over] if over is not None else [])
