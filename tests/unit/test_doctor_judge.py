"""What papr-hook doctor makes of the facts about a host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from papr_hook.diagnostics import Diagnostic, Severity
from papr_hook.doctor.facts import (
    DaemonFacts,
    GatewayFacts,
    GuestStart,
    HookCall,
    HookFacts,
    LibvirtFacts,
    Owner,
    Process,
    SecurityFacts,
    SocketFacts,
)
from papr_hook.doctor.judge import judge_gateway, judge_hook, judge_libvirt, judge_security
from papr_hook.virt.hook_files import HookFile

HOOKS = Path("/etc/libvirt/hooks")
INSTALLED = 1_000_000.0
OURS = HookFile(HOOKS / "qemu", True, True, INSTALLED, Path("/usr/share/papr-hook"))
BESIDE = replace(OURS, path=HOOKS / "qemu.d/90-papr-hook")
OTHERS = HookFile(HOOKS / "qemu", False, True, INSTALLED)
SILENT = replace(OURS, is_executable=False)
CALL = HookCall(INSTALLED + 10, "passed", "prepare", "web")

CLIENTS = SocketFacts("/run/libvirt/libvirt-sock", True, Owner(0o660, "root", "libvirt"))
UPSTREAM = SocketFacts("/run/libvirt/upstream/libvirt-sock", True, Owner(0o660, "root", "libvirt"))
GATED = DaemonFacts("libvirtd", CLIENTS, UPSTREAM, True)
ABSENT = SocketFacts("/run/libvirt/virtqemud-sock")
VIRTQEMUD = DaemonFacts("virtqemud", ABSENT, ABSENT)


def named(found: Iterable[Diagnostic]) -> list[tuple[str, str]]:
    """Return the severity and the name of each finding."""
    return [(one.severity.value, one.name.value) for one in found]


def only(found: Iterable[Diagnostic]) -> Diagnostic:
    """Return the one finding that is more than a note."""
    (one,) = [one for one in found if one.severity is not Severity.NOTE]
    return one


def test_a_hook_that_works() -> None:
    """The last call is named with its time and result."""
    facts = HookFacts(HOOKS, (OURS,), "", CALL, GuestStart("web", INSTALLED + 11))
    (found,) = judge_hook(facts)
    assert named([found]) == [("note", "hook-call")]
    assert "for guest 'web' (prepare), and let it go on" in found.text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), ("error", "hook-missing")),
        ((OTHERS,), ("error", "hook-replaced")),
        ((SILENT,), ("error", "hook-not-executable")),
        ((OTHERS, replace(BESIDE, is_executable=False)), ("error", "hook-not-executable")),
        ((OURS, BESIDE), ("warning", "hook-twice")),
    ],
)
def test_place_of_the_hook(files: tuple[HookFile, ...], expected: tuple[str, str]) -> None:
    """The hook is missing, replaced, not executable or there twice, each with what to do."""
    found = only(judge_hook(HookFacts(HOOKS, files, "", CALL)))
    assert named([found]) == [expected]
    assert ": " in found.text


def test_another_hook_beside_ours_is_a_note() -> None:
    """libvirt runs both."""
    assert ("note", "hook-beside") in named(judge_hook(HookFacts(HOOKS, (OTHERS, BESIDE), "", CALL)))


def test_a_hook_that_cannot_load_its_modules() -> None:
    """The reason is Python's."""
    found = only(judge_hook(HookFacts(HOOKS, (OURS,), "No module named 'lxml'", CALL)))
    assert named([found]) == [("error", "hook-broken")]
    assert "No module named 'lxml'" in found.text


@pytest.mark.parametrize("call", [None, CALL])
def test_a_guest_that_started_without_the_hook(call: HookCall | None) -> None:
    """libvirt did not call the hook for a guest that was started after the hook was installed."""
    start = GuestStart("db", INSTALLED + 1000)
    found = only(judge_hook(HookFacts(HOOKS, (OURS,), "", call, start)))
    assert named([found]) == [("error", "hook-not-called")]
    assert "guest 'db'" in found.text


@pytest.mark.parametrize("start", [INSTALLED - 1, CALL.at + 60])
def test_a_guest_that_says_nothing_about_the_hook(start: float) -> None:
    """One that was started before the hook was installed, and one whose disks took a minute to prepare."""
    call = None if start < INSTALLED else CALL
    assert named(judge_hook(HookFacts(HOOKS, (OURS,), "", call, GuestStart("db", start)))) == [("note", "hook-call")]


@pytest.mark.parametrize(
    ("result", "expected", "words"),
    [
        ("refused", ("note", "hook-call"), "refused the start"),
        ("failed", ("warning", "hook-failed"), "journalctl"),
        ("", ("note", "hook-call"), "last called at"),
    ],
)
def test_the_last_call(result: str, expected: tuple[str, str], words: str) -> None:
    """Its result is told, and a failure is a warning."""
    call = replace(CALL, result=result) if result else HookCall(CALL.at)
    (found,) = judge_hook(HookFacts(HOOKS, (OURS,), "", call))
    assert named([found]) == [expected]
    assert words in found.text


@pytest.mark.parametrize(
    ("call", "since"),
    [(None, "since the host booted"), (HookCall(INSTALLED - 1), "since it was installed or changed at")],
)
def test_no_call_yet(call: HookCall | None, since: str) -> None:
    """Without a call since boot, or since the installation, there is nothing to complain about."""
    (found,) = judge_hook(HookFacts(HOOKS, (OURS,), "", call))
    assert named([found]) == [("note", "hook-call")]
    assert f"has not been called {since}" in found.text


def judge(daemon: DaemonFacts, *more: DaemonFacts) -> list[Diagnostic]:
    """Return what is found about an enabled gateway."""
    return list(judge_gateway(GatewayFacts(True, (VIRTQEMUD, daemon, *more))))


def test_a_gateway_that_works() -> None:
    """One note names the sockets; a daemon that the host does not have is not mentioned."""
    assert named(judge(GATED)) == [("note", "gateway-up")]


def test_no_gateway() -> None:
    """A host with the hook alone is as its administrator wanted it."""
    direct = DaemonFacts("libvirtd", CLIENTS, replace(UPSTREAM, listens=False), True)
    assert named(judge_gateway(GatewayFacts(False, (direct,)))) == [("note", "gateway-off")]


@pytest.mark.parametrize(
    ("daemon", "name", "words"),
    [
        (
            replace(GATED, clients=replace(CLIENTS, is_link=True)),
            "gateway-bypassed",
            "journalctl -u papr-hook-gateway@",
        ),
        (replace(GATED, clients=replace(CLIENTS, listens=False, owner=None)), "gateway-down", "systemctl restart"),
        (replace(GATED, upstream=replace(UPSTREAM, listens=False, owner=None)), "gateway-elsewhere", "gateway enable"),
        (replace(GATED, answers=False), "gateway-down", "gives no answer"),
        (
            replace(GATED, answers=False, upstream=replace(UPSTREAM, listens=False, owner=None)),
            "gateway-down",
            "gives no answer",
        ),
        (
            replace(GATED, clients=replace(CLIENTS, owner=Owner(0o600, "root", "root"))),
            "gateway-socket",
            "has 0600 root:root, but libvirtd's own socket 0660 root:libvirt",
        ),
    ],
)
def test_a_gateway_that_fails(daemon: DaemonFacts, name: str, words: str) -> None:
    """Each fault has its name and what to do about it."""
    found = only(judge(daemon))
    assert named([found]) == [("error", name)]
    assert words in found.text


def test_a_second_daemon_that_has_no_gateway() -> None:
    """A host whose daemon was exchanged after the gateway was enabled."""
    other = DaemonFacts("virtqemud", replace(ABSENT, listens=True), ABSENT, True)
    assert [one.name.value for one in judge(GATED, other)] == ["gateway-up", "gateway-elsewhere"]


def test_no_daemon() -> None:
    """An enabled gateway without a daemon serves nobody."""
    assert named(judge_gateway(GatewayFacts(True, (VIRTQEMUD,)))) == [("error", "gateway-down")]


def test_clients_that_bypass_the_gateway() -> None:
    """TLS, TCP and clients of the daemon's own socket are warnings."""
    found = judge(replace(GATED, network=("libvirtd-tcp.socket",), direct=(Process(7, "virsh"),)))
    assert named(found)[1:] == [("warning", "network-clients"), ("warning", "direct-client")]
    assert found[2].device == "virsh (process 7)"


def test_a_bypassed_gateway_does_not_list_its_clients() -> None:
    """All of them are past it, and that is one finding."""
    daemon = replace(GATED, clients=replace(CLIENTS, is_link=True), direct=(Process(7, "virsh"),))
    assert named(judge(daemon)) == [("error", "gateway-bypassed")]


SOFTWARE = "papr-hook 1, Python 3.11"


def test_versions() -> None:
    """libvirt's number becomes a version."""
    (found,) = judge_libvirt(LibvirtFacts("", 11_003_000, 7_002_011), SOFTWARE, None)
    assert found.text == "libvirt 11.3.0, QEMU 7.2.11, papr-hook 1, Python 3.11"


def test_no_libvirt() -> None:
    """The error of the connection is the finding."""
    found = list(judge_libvirt(LibvirtFacts("could not connect"), SOFTWARE, None))
    assert named(found) == [("error", "libvirt-unreachable"), ("note", "versions")]


@pytest.mark.parametrize(("version", "path"), [(3_005_000, OURS), (6_004_000, BESIDE)])
def test_an_old_libvirt(version: int, path: HookFile) -> None:
    """One with a single PHB, and one that runs nothing in qemu.d."""
    found = only(judge_libvirt(LibvirtFacts("", version), SOFTWARE, HookFacts(HOOKS, (path,))))
    assert found.name.value == "libvirt-too-old"


def test_guests_on_autostart() -> None:
    """Each that does not comply is an error with its remedy."""
    found = only(judge_libvirt(LibvirtFacts("", 9_000_000, 0, ("db",)), SOFTWARE, None))
    assert str(found) == (
        "error: guest 'db' is started at boot, but does not comply: run 'papr-hook adopt db' [autostart]"
    )


def test_security() -> None:
    """SELinux's state is a note; wrong labels and denials are warnings."""
    facts = SecurityFacts(
        "enforcing", (("virt_hooks_unconfined", False),), ("Would relabel /x from a to b",), ("denied 1", "denied 2")
    )
    found = list(judge_security(facts))
    assert named(found) == [("note", "selinux-state"), ("warning", "selinux-label"), ("warning", "access-denied")]
    assert found[0].text == "SELinux is enforcing, where papr-hook is untested, virt_hooks_unconfined is off"
    assert "denied since boot: 2;" in found[2].text
    assert found[2].text.endswith("denied 2")
    assert list(judge_security(SecurityFacts())) == []
