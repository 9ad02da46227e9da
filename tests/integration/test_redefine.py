"""The hook's helper beside other clients of a real libvirt: their edits stay, and what they undefine stays away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import pytest

from papr_hook.virt.connection import Connection, connect
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


def test_no_confirmed_edit_is_lost(host: Host, client: Connection) -> None:
    """An edit that libvirt confirmed while the hook or its helper was at work is in the guest's domain XML.

    libvirt cannot compare and set, so the time between the helper's last reading and its redefinition remains.
    """
    chance = random.Random(1)
    lost = 0
    for number in range(ROUNDS):
        client.define(GUEST.encode())
        edited = GUEST.replace("<os>", f"<title>edit {number}</title><os>").encode()
        refuse_and(host, partial(client.define, edited), chance.uniform(0, MAX_DELAY))
        lost += f"<title>edit {number}</title>" not in host.dumpxml("g", "--inactive")
    assert lost <= 1, f"{lost} of {ROUNDS} edits were lost"


def test_undefined_guest_stays_away(host: Host, client: Connection) -> None:
    """A guest that is undefined while the hook or its helper is at work does not come back."""
    chance = random.Random(2)
    back = 0
    for _ in range(ROUNDS):
        client.define(GUEST.encode())
        refuse_and(host, lambda: host.virsh("undefine", "g"), chance.uniform(0, MAX_DELAY))
        back += "g" in host.virsh("list", "--all", "--name").stdout.split()
        host.virsh("undefine", "g", check=False)
    assert back <= 1, f"{back} of {ROUNDS} guests came back"


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
