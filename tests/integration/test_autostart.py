"""Guests on autostart that do not comply, when libvirt's daemon starts as at boot: they run soon, laid out."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.harness.libvirt_host import Host
from tests.helpers import hook_installation
from tests.helpers.guests import complies, crowded, laid_out
from tests.helpers.polling import wait_until

AUTOSTARTED = "/run/libvirt/qemu/autostarted"
SECONDS = 30
"""Within which the guests run once the daemon answers."""


def guest(name: str, compliant: bool = False) -> str:
    """Return domain XML of a guest that boots nothing."""
    xml = (
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory>"
        "<os><type arch='ppc64le' machine='pseries'>hvm</type></os>"
        f"<features><htm state='off'/></features><devices>{crowded()}</devices></domain>"
    )
    return laid_out(xml) if compliant else xml


@pytest.fixture
def host(make_host: Callable[[str], Host]) -> Host:
    """Start a host with the hook and without the gateway."""
    made = make_host("autostart")
    hook_installation.install(made, record=True)
    return made


def boot(host: Host) -> None:
    """Start the daemon as the host's boot does, which leaves nothing in /run."""
    host.stop_daemon()
    host.run(["rm", "-f", AUTOSTARTED])
    host.start_daemon()


def running(host: Host) -> set[str]:
    """Return the names of the guests that run."""
    return set(host.virsh("list", "--name").stdout.split())


def test_refused_autostarts(host: Host) -> None:
    """Guests on autostart run once libvirt serves clients, each laid out, and no other guest is started."""
    names = {f"auto{number}" for number in range(3)}
    for name in sorted(names):
        host.define(guest(name))
        host.virsh("autostart", name)
    host.define(guest("compliant", compliant=True))
    host.virsh("autostart", "compliant")
    host.define(guest("manual"))
    boot(host)
    answered = time.monotonic()
    wait_until(lambda: running(host) == {*names, "compliant"}, SECONDS)
    print(f"{len(names)} guests run {time.monotonic() - answered:.1f} s after the daemon answers")
    assert all(complies(host.dumpxml(name)) for name in names)
    assert not complies(host.dumpxml("manual"))
    prepared = [call.split()[0] for call in hook_installation.calls(host) if "prepare" in call]
    assert sorted(prepared) == sorted([*names, *names, "compliant"])


def test_next_boot_refuses_nothing(host: Host) -> None:
    """A guest that was laid out starts by itself at the next boot."""
    host.define(guest("auto"))
    host.virsh("autostart", "auto")
    boot(host)
    wait_until(lambda: running(host) == {"auto"}, SECONDS)
    host.virsh("destroy", "auto")
    before = len(hook_installation.calls(host))
    boot(host)
    assert running(host) == {"auto"}
    assert [call for call in hook_installation.calls(host)[before:] if "prepare" in call] == ["auto prepare begin - 0"]


def test_user_start_of_a_guest_on_autostart(host: Host) -> None:
    """Outside of a boot the refused start of such a guest is the user's to repeat."""
    host.define(guest("auto"))
    host.virsh("autostart", "auto")
    refused = host.virsh("start", "auto", check=False)
    assert "is being laid out: start it again" in refused.stderr
    wait_until(lambda: complies(host.dumpxml("auto", "--inactive")))
    assert running(host) == set()
    host.virsh("start", "auto")
