"""A device that is attached or updated gets its address in the call."""

from __future__ import annotations

import pytest

from papr_hook.errors import PaprHookError
from papr_hook.gateway.protocol import Procedure, Reader, string, uint
from papr_hook.gateway.rewrite import RefusalError
from tests.helpers.domain_xml import at, disk, domain_xml, nic
from tests.helpers.fake_libvirt import GUEST, RUNNING_GUEST, FakeLibvirt

LIVE, CONFIG = 1, 2


def device_of(payload: object) -> bytes:
    """Return the device XML of a call."""
    assert isinstance(payload, bytes)
    reader = Reader(payload)
    reader.domain()
    return reader.string()


def test_an_attach_waits_for_the_lock_after_a_first_answer() -> None:
    """A client that may not read the guest never has the lock."""
    libvirt = FakeLibvirt(running=domain_xml())
    payload = RUNNING_GUEST + string(nic(9).encode())
    assert b"bus='0x00'" in device_of(libvirt.forward(Procedure.DOMAIN_ATTACH_DEVICE, payload))
    assert libvirt.locked
    refusing = FakeLibvirt(running=domain_xml(), refused=(Procedure.DOMAIN_IS_ACTIVE,))
    with pytest.raises(PaprHookError, match="access denied"):
        refusing.forward(Procedure.DOMAIN_ATTACH_DEVICE, payload)
    assert not refusing.locked


def test_a_full_guest_refuses() -> None:
    """The client gets an error that names the guest and the device."""
    full = domain_xml("".join(nic(n, at(n)) for n in range(5)))
    with pytest.raises(RefusalError, match="guest 'g': no empty vPHB is left for <interface> 52:54:00:00:00:09"):
        FakeLibvirt(running=full).forward(Procedure.DOMAIN_ATTACH_DEVICE, RUNNING_GUEST + string(nic(9).encode()))


@pytest.mark.parametrize(("flags", "running"), [(CONFIG, False), (0, False), (LIVE | CONFIG, True), (CONFIG, True)])
def test_an_update_for_the_next_start(flags: int, running: bool) -> None:
    """The device keeps the address of the one that it replaces, and the flags stay."""
    defined = domain_xml(disk("vda", at(3)), running=False)
    libvirt = FakeLibvirt(defined, running=domain_xml(disk("vda", at(3))) if running else None)
    payload = GUEST + string(disk("vda").encode()) + uint(flags)
    forwarded = libvirt.forward(Procedure.DOMAIN_UPDATE_DEVICE_FLAGS, payload)
    assert b"bus='0x03'" in device_of(forwarded)
    assert isinstance(forwarded, bytes) and forwarded.endswith(uint(flags))


@pytest.mark.parametrize("flags", [0, LIVE])
def test_an_update_of_the_running_guest(flags: int) -> None:
    """libvirt changes the device in place."""
    libvirt = FakeLibvirt(domain_xml(disk("vda", at(3)), running=False), running=domain_xml(disk("vda", at(3))))
    payload = GUEST + string(disk("vda").encode()) + uint(flags)
    assert libvirt.forward(Procedure.DOMAIN_UPDATE_DEVICE_FLAGS, payload) == payload
