"""papr-hook attach: one device, placed and handed to libvirt while no other attach chooses a vPHB."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from papr_hook.commands import attach
from papr_hook.commands.attach import attach_device
from papr_hook.config import Config
from papr_hook.layout.attach import NoSpareError
from papr_hook.virt.connection import Connection
from papr_hook.virt.locks import open_attach_locks
from tests.helpers.domain_xml import at, domain_xml, nic

UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
LIVE, CONFIG = 1, 2


class FakeConnection:
    """A connection to a host with one guest, which records what is attached."""

    def __init__(self, run_dir: Path, running: bytes, defined: bytes) -> None:
        self.run_dir = run_dir
        self.xmls = {0: running, 2: defined}
        self.attached: list[tuple[bytes, int]] = []

    def uuid(self, guest: str) -> str:
        """Return the guest's UUID."""
        return UUID

    def xml(self, guest: str, flags: int) -> bytes:
        """Return a domain XML."""
        return self.xmls[flags]

    def attach(self, guest: str, device: bytes, flags: int) -> None:
        """Record a device."""
        self.attached.append((device, flags))


def run(connection: FakeConnection, device: str, flags: int) -> str:
    """Attach a device, and return where it is."""
    config = Config(libvirt_run_dir=connection.run_dir)
    return attach_device(cast(Connection, connection), "g", device.encode(), flags, config).place


def test_a_device_is_placed_in_both_domain_xmls(tmp_path: Path) -> None:
    """It gets an address that both have room for."""
    defined = domain_xml(nic(1, at(0)) + nic(2, at(4)), running=False)
    connection = FakeConnection(tmp_path, domain_xml(nic(1, at(0))), defined)
    assert run(connection, nic(9), LIVE | CONFIG) == "vPHB 2 slot 1"
    ((device, flags),) = connection.attached
    assert b"bus='0x02'" in device and flags == LIVE | CONFIG


def test_a_device_that_is_not_on_pci(tmp_path: Path) -> None:
    """libvirt gets it as it is, and no lock file is made."""
    connection = FakeConnection(tmp_path, domain_xml(), domain_xml(running=False))
    device = "<hostdev mode='subsystem' type='usb'/>"
    assert run(connection, device, LIVE) == ""
    assert connection.attached == [(device.encode(), LIVE)]
    assert list(tmp_path.iterdir()) == []


def test_a_full_guest(tmp_path: Path) -> None:
    """The error comes before libvirt is asked, and the lock is free again once the process ends."""
    connection = FakeConnection(tmp_path, domain_xml("".join(nic(n, at(n)) for n in range(5))), b"")
    with pytest.raises(NoSpareError):
        run(connection, nic(9), LIVE)
    assert connection.attached == []


def test_another_attach_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on without the lock only after the time that a lock lasts."""
    locks = open_attach_locks(tmp_path)
    held = locks.acquire(bytes(range(16)))
    assert held is not None
    monkeypatch.setattr(attach, "open_attach_locks", lambda run_dir: locks)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            held.release()

    monkeypatch.setattr("papr_hook.commands.attach.time.sleep", wait)
    connection = FakeConnection(tmp_path, domain_xml(), b"")
    assert run(connection, nic(9), LIVE) == "vPHB 0 slot 1"
    assert len(waits) == 3
