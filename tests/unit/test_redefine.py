"""The helper process: what it tells the hook, and what it does once the hook has exited."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from papr_hook.config import Config
from papr_hook.errors import LibvirtError
from papr_hook.hook import redefine
from papr_hook.hook.redefine import Helper, RefusedGuest, redefine_after_exit
from papr_hook.virt.connection import Connection
from papr_hook.virt.redefinition import Redefinition
from papr_hook.virt.store import Autostart
from tests.helpers.paths import GOLDEN

GUEST = (GOLDEN / "pc-shaped-in.xml").read_bytes()


class FakeLibvirt(Connection):
    """A libvirt with one guest; its calls are lines of a file, as they come from another process.

    delay: seconds that a connection takes. active, autostart: the guest's state when the helper asks.
    """

    def __init__(self, calls: Path, delay: float = 0, active: bool = False, autostart: bool = True) -> None:
        super().__init__("", None)
        self.calls = calls
        self.delay = delay
        self.active = active
        self.autostart = autostart

    @contextlib.contextmanager
    def connect(self, uri: str) -> Iterator[Connection]:
        time.sleep(self.delay)
        self.note(f"connect to {uri}")
        yield self
        self.note("close")

    def note(self, call: str) -> None:
        with self.calls.open("a") as file:
            file.write(f"{call}\n")

    def receive_events(self) -> None:
        pass

    def wait_for_job(self, guest: str) -> None:
        pass

    def read_persistent_xml(self, guest: str) -> bytes | None:
        return GUEST

    def redefine_if_unchanged(self, guest: str, judged: bytes, data: bytes) -> tuple[Redefinition, bytes]:
        self.note("define")
        return Redefinition.DONE, data

    def is_autostarted(self, guest: str) -> bool:
        return self.autostart

    def start_if_inactive(self, guest: str) -> bool:
        self.note("running" if self.active else f"start {guest}")
        return not self.active


@pytest.fixture
def hook() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in the place of the hook that libvirt waits for."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return settings of a host without devices."""
    return Config(uri="test:///fake", sysfs=tmp_path, domain_dir=tmp_path, libvirt_run_dir=tmp_path)


def calls_of(libvirt: FakeLibvirt) -> list[str]:
    """Wait for the end of the helper, and return its calls."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        calls = libvirt.calls.read_text().splitlines() if libvirt.calls.exists() else []
        if calls and calls[-1] == "close":
            return calls[:-1]
        time.sleep(0.02)
    raise AssertionError("the helper is still there after 20 s")


def ask(
    libvirt: FakeLibvirt, monkeypatch: pytest.MonkeyPatch, config: Config, hook: int, autostart: Autostart
) -> Helper:
    monkeypatch.setattr(redefine, "connect", libvirt.connect)
    return redefine_after_exit(RefusedGuest("pc-shaped", "uuid", autostart, GUEST), config, hook)


@pytest.mark.parametrize("autostart", list(Autostart))
def test_nothing_is_done_before_the_hook_exits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, hook: subprocess.Popen[bytes], autostart: Autostart
) -> None:
    """A helper that is connected redefines the guest after the hook, and starts it neither way: the user does."""
    libvirt = FakeLibvirt(tmp_path / "calls")
    assert ask(libvirt, monkeypatch, config, hook.pid, autostart) is Helper.CONNECTED
    assert libvirt.calls.read_text() == "connect to test:///fake\n"
    hook.kill()
    assert calls_of(libvirt) == ["connect to test:///fake", "define"]


@pytest.mark.parametrize("active", [False, True])
def test_refused_autostart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, hook: subprocess.Popen[bytes], active: bool
) -> None:
    """A helper that connects only after the hook redefines a guest on autostart and starts it if it does not run."""
    monkeypatch.setattr(redefine, "AUTOSTART_CONNECT_SECONDS", 0.05)
    libvirt = FakeLibvirt(tmp_path / "calls", delay=1, active=active)
    assert ask(libvirt, monkeypatch, config, hook.pid, Autostart.ALWAYS) is Helper.WAITING
    assert not libvirt.calls.exists()
    hook.kill()
    last = "running" if active else "start uuid"
    assert calls_of(libvirt) == ["connect to test:///fake", "define", last]


def test_refused_autostart_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, hook: subprocess.Popen[bytes]
) -> None:
    """A guest on autostart for one boot is started too, although libvirt has forgotten that by then."""
    monkeypatch.setattr(redefine, "AUTOSTART_CONNECT_SECONDS", 0.05)
    libvirt = FakeLibvirt(tmp_path / "calls", delay=0.5, autostart=False)
    assert ask(libvirt, monkeypatch, config, hook.pid, Autostart.ONCE) is Helper.WAITING
    hook.kill()
    assert calls_of(libvirt) == ["connect to test:///fake", "define", "start uuid"]


@pytest.mark.parametrize(("autostart", "still"), [(Autostart.ALWAYS, False), (Autostart.NEVER, True)])
def test_late_helper_starts_no_other_guest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: Config,
    hook: subprocess.Popen[bytes],
    autostart: Autostart,
    still: bool,
) -> None:
    """A guest that is on autostart no more, or was not when it was refused, is redefined and not started."""
    monkeypatch.setattr(redefine, "AUTOSTART_CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(redefine, "CONNECT_SECONDS", 0.05)
    libvirt = FakeLibvirt(tmp_path / "calls", delay=0.5, autostart=still)
    assert ask(libvirt, monkeypatch, config, hook.pid, autostart) is Helper.WAITING
    hook.kill()
    assert calls_of(libvirt) == ["connect to test:///fake", "define"]


def test_no_libvirt(monkeypatch: pytest.MonkeyPatch, config: Config, hook: subprocess.Popen[bytes]) -> None:
    """A helper that cannot connect says so at once."""

    def refuse(uri: str) -> None:
        raise LibvirtError("could not connect")

    monkeypatch.setattr(redefine, "connect", refuse)
    began = time.monotonic()
    guest = RefusedGuest("pc-shaped", "uuid", Autostart.NEVER, GUEST)
    assert redefine_after_exit(guest, config, hook.pid) is Helper.FAILED
    assert time.monotonic() - began < redefine.CONNECT_SECONDS


def test_no_hook(config: Config) -> None:
    """Without the process that libvirt waits for there is no helper."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert (
        redefine_after_exit(RefusedGuest("pc-shaped", "uuid", Autostart.NEVER, GUEST), config, gone.pid)
        is Helper.FAILED
    )


def test_helper_holds_nothing_of_the_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, hook: subprocess.Popen[bytes]
) -> None:
    """A pipe that the hook has open ends with the hook, while the helper still waits: libvirt does not wait for it."""
    reader, writer = os.pipe()
    libvirt = FakeLibvirt(tmp_path / "calls")
    assert ask(libvirt, monkeypatch, config, hook.pid, Autostart.NEVER) is Helper.CONNECTED
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
