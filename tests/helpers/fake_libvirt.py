"""A libvirt that answers the questions of a rewrite, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from papr_hook.config import Config
from papr_hook.gateway.protocol import Procedure, Reader, build_packet, string, uint
from papr_hook.gateway.rewrite import Call, ForwardInTwo, LockRequest, UpstreamError, start_rewrite

UUID = bytes(range(16))
GUEST = string(b"g") + UUID + uint(0xFFFFFFFF)
RUNNING_GUEST = string(b"g") + UUID + uint(1)
INACTIVE = 2


@dataclass
class FakeLibvirt:
    """A host with one guest.

    Attributes:
        defined: Its domain XML for the next start, or None if it is transient.
        running: That of the running guest, or None if it is off.
        snapshot: The XML of its snapshot.
        managed_save: Whether it has a saved state.
        refused: Procedures that libvirt refuses.
        edits: Domain XMLs that others define, one after each time that it is read.
        calls: The gateway's own calls.
        journal: What was logged.
    """

    defined: bytes | None = None
    running: bytes | None = None
    snapshot: bytes = b""
    managed_save: bool = False
    refused: tuple[Procedure, ...] = ()
    edits: list[bytes] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    locked: bool = False

    def forward(self, procedure: Procedure, payload: bytes, config: Config | None = None) -> bytes | ForwardInTwo:
        """Have a client make a call, and return what is forwarded."""
        packet = build_packet(procedure, 0, 7, 0, payload)
        rewrite = start_rewrite(packet, lambda: config or Config(), lambda _, text: self.journal.append(text))
        assert rewrite is not None
        try:
            need = next(rewrite)
            while True:
                if isinstance(need, LockRequest):
                    self.locked = True
                    need = next(rewrite)
                    continue
                self.calls.append(need)
                try:
                    answer = self._answer(need)
                except UpstreamError as error:
                    need = rewrite.throw(error)
                else:
                    need = rewrite.send(answer)
        except StopIteration as done:
            value: bytes | ForwardInTwo = done.value
            return value

    def _answer(self, call: Call) -> bytes:
        if call.procedure in self.refused:
            raise UpstreamError("access denied")
        return self._answers[Procedure(call.procedure)](call.payload)

    @property
    def procedures(self) -> list[Procedure]:
        """Return the procedures of the gateway's own calls."""
        return [Procedure(call.procedure) for call in self.calls]

    @property
    def _answers(self) -> dict[Procedure, Callable[[bytes], bytes]]:
        return {
            Procedure.DOMAIN_GET_XML_DESC: self._domain_xml,
            Procedure.DOMAIN_IS_ACTIVE: lambda _: uint(self.running is not None),
            Procedure.DOMAIN_IS_PERSISTENT: lambda _: uint(self.defined is not None),
            Procedure.DOMAIN_HAS_MANAGED_SAVE_IMAGE: lambda _: uint(self.managed_save),
            Procedure.DOMAIN_DEFINE_XML_FLAGS: self._define,
            Procedure.DOMAIN_SNAPSHOT_GET_XML_DESC: lambda _: string(self.snapshot),
        }

    def _domain_xml(self, payload: bytes) -> bytes:
        reader = Reader(payload)
        if (self.defined is None and self.running is None) or reader.domain().uuid != UUID:
            raise UpstreamError("no such guest")
        inactive = reader.uint() & INACTIVE or self.running is None
        xml = self.defined if inactive and self.defined is not None else self.running
        if inactive and self.edits:
            self.defined = self.edits.pop(0)
        return string(xml or b"")

    def _define(self, payload: bytes) -> bytes:
        self.defined = Reader(payload).string()
        return GUEST
