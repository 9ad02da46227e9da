"""The hook's helper beside other clients of a real libvirt: what they undefine stays away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import libvirt
import pytest

from papr_hook.virt.connection import Connection, connect
from papr_hook.virt.redefinition import Redefinition
from tests.harness.libvirt_host import Host
from tests.helpers import hook_installation
from tests.helpers.guests import complies, crowded, laid_out
from tests.helpers.polling import wait_until

GUEST = (
    "<domain type='qemu'><name>g</name><uuid>6a2b0e5c-9a8f-4f0a-8b4f-0123456789ab</uuid>"
    "<memory unit='MiB'>256</memory><os><type arch='ppc64le' machine='pseries'>hvm</type></os>"
    f"<features><htm state='off'/></features><devices>{crowded()}</devices></domain>"
)
ROUNDS = 50
MAX_DELAY = 0.4
"""Seconds after a start within which another client acts: some 0.2 s of it belong to the hook."""


@pytest.fixture
def host(make_host: Callable[[str], Host]) -> Host:
    """Start a host with the hook."""
    made = make_host("redefine")
    hook_installation.install(made)
    return made


@pytest.fixture
def other(host: Host) -> Iterator[libvirt.virConnect]:
    """Connect the user of another client."""
    connection = libvirt.open(host.uri)
    yield connection
    connection.close()


@pytest.fixture
def client(host: Host) -> Iterator[Connection]:
    """Connect another client than the one that starts the guest."""
    with connect(host.uri) as connection:
        yield connection


def refuse_and(host: Host, act: Callable[[], object], delay: float) -> None:
    """Start the guest, which is refused; act in between; wait for the end of the helper."""
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(host.virsh, "start", "g", check=False)
        time.sleep(delay)
        act()
        assert start.result().returncode != 0
    wait_until(lambda: host.run(["pgrep", "-f", "papr_hook.hook"], check=False).returncode != 0)


def test_undefined_guest_stays_away(host: Host, client: Connection) -> None:
    """A guest that is undefined while the hook or its helper is at work does not come back."""
    chance = random.Random(2)
    for number in range(ROUNDS):
        client.define(GUEST.encode())
        refuse_and(host, lambda: host.virsh("undefine", "g"), chance.uniform(0, MAX_DELAY))
        assert "g" not in host.virsh("list", "--all", "--name").stdout.split(), f"back in round {number}"


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda other: other.lookupByName("g").undefine(), Redefinition.UNDEFINED),
        (lambda other: other.defineXML(GUEST.replace("<os>", "<title>edit</title><os>")), Redefinition.COLLIDED),
        (lambda other: None, Redefinition.DONE),
    ],
    ids=["undefined", "edited", "nothing"],
)
def test_another_client_at_the_same_moment(
    client: Connection,
    other: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[libvirt.virConnect], object],
    outcome: Redefinition,
) -> None:
    """What another client does between the last reading and the redefinition is known afterwards.

    libvirt cannot compare and set, so an edit is lost there. A guest that is undefined there stays away.
    """
    define = Connection.define
    client.define(GUEST.encode())
    judged = client.read_persistent_xml("g")
    assert judged is not None

    def define_late(self: Connection, data: bytes) -> None:
        act(other)
        define(self, data)

    monkeypatch.setattr(Connection, "define", define_late)
    assert client.redefine_if_unchanged("g", judged, laid_out(GUEST).encode())[0] is outcome
    names = [guest.name() for guest in other.listAllDomains()]
    assert ("g" in names) is (outcome is not Redefinition.UNDEFINED)


def test_a_running_guest_that_is_undefined_at_the_same_moment(
    client: Connection, other: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays transient, although libvirt would make it persistent."""
    define = Connection.define
    client.define(laid_out(GUEST).encode())
    judged = client.read_persistent_xml("g")
    assert judged is not None
    guest = other.lookupByName("g")

    def define_late(self: Connection, data: bytes) -> None:
        guest.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        guest.undefine()
        define(self, data)

    monkeypatch.setattr(Connection, "define", define_late)
    assert client.redefine_if_unchanged("g", judged, judged)[0] is Redefinition.UNDEFINED
    assert guest.isActive()
    assert not guest.isPersistent()
    guest.destroy()


def test_laid_out_without_other_clients(host: Host, client: Connection) -> None:
    """The helper lays out the guest, with everything else as it was."""
    client.define(GUEST.replace("<os>", "<title>kept</title><os>").encode())
    refuse_and(host, lambda: None, 0)
    after = host.dumpxml("g", "--inactive")
    assert complies(after)
    assert "<title>kept</title>" in after


def test_window_is_short(host: Host, client: Connection) -> None:
    """Between the last reading and the end of the redefinition, in which edits can be lost, are milliseconds."""
    client.define(GUEST.encode())
    new = laid_out(GUEST).encode()
    seconds = []
    for data in [new, GUEST.encode()] * 10:
        assert client.read_persistent_xml("g") is not None
        began = time.monotonic()
        client.define(data)
        seconds.append(time.monotonic() - began)
    print(f"the window is {1000 * median(seconds):.1f} ms, {1000 * max(seconds):.1f} ms at most")
    assert median(seconds) < 0.1
