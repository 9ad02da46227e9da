"""Judge what was read of a host: facts in, findings out."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..diagnostics import Diagnostic, Name, error, note, warning
from ..virt.hook_files import FIRST_LIBVIRT_WITH_QEMU_D
from .facts import DaemonFacts, GatewayFacts, HookCall, HookFacts, LibvirtFacts, SecurityFacts

OLDEST_LIBVIRT = (3, 6, 0)
"""The first libvirt that gives a guest more than one PHB."""

START_SECONDS = 120.0
"""How much later than the hook's call QEMU may start: other hooks run, and libvirt prepares disks and networks."""

_AGAIN = "install papr-hook again"


def judge_hook(facts: HookFacts) -> Iterator[Diagnostic]:
    """Yield what is found about the hook."""
    main = str(facts.directory / "qemu")
    ours = [file for file in facts.files if file.is_ours]
    running = [file for file in ours if file.is_executable]
    if not ours:
        if any(str(file.path) == main for file in facts.files):
            text = f"is another program's, and qemu.d has no hook of papr-hook: {_AGAIN}, which keeps the other hook"
            yield error(Name.HOOK_REPLACED, text, main)
        else:
            yield error(Name.HOOK_MISSING, f"is missing, and qemu.d has no hook of papr-hook: {_AGAIN}", main)
        return
    for file in ours:
        if not file.is_executable:
            yield error(Name.HOOK_NOT_EXECUTABLE, f"is not executable: run 'chmod 755 {file.path}'", str(file.path))
    for file in running[1:]:
        text = f"is a second hook of papr-hook, beside {running[0].path}: remove one of them"
        yield warning(Name.HOOK_TWICE, text, str(file.path))
    for file in facts.files:
        if not file.is_ours and file.is_executable:
            text = "is another program's hook: libvirt runs it as well, and refuses the start if it fails"
            yield note(Name.HOOK_BESIDE, text, str(file.path))
    if facts.failure:
        text = f"cannot load its modules, so it lets every guest start: {facts.failure}; {_AGAIN}"
        yield error(Name.HOOK_BROKEN, text, str(ours[0].path))
    if running:
        yield from _judge_calls(facts, max(file.changed_at for file in running))


def _judge_calls(facts: HookFacts, installed_at: float) -> Iterator[Diagnostic]:
    start, call = facts.last_start, facts.last_call
    called_at = call.at if call is not None else 0.0
    if start is not None and start.at > installed_at and start.at - called_at > START_SECONDS:
        text = (
            f"guest '{start.guest}' was started at {_clock(start.at)}, and libvirt did not call the hook: run "
            "'systemctl reload' for libvirtd or virtqemud, which looks for hooks when it starts and when it reloads"
        )
        yield error(Name.HOOK_NOT_CALLED, text)
    if call is None:
        yield note(Name.HOOK_CALL, "the hook has not been called since the host booted")
    elif called_at < installed_at:
        text = f"the hook has not been called since it was installed or changed at {_clock(installed_at)}"
        yield note(Name.HOOK_CALL, text)
    else:
        yield _judge_call(call)


def _judge_call(call: HookCall) -> Diagnostic:
    text = f"the hook was last called at {_clock(call.at)}"
    if call.guest:
        text += f", for guest '{call.guest}' ({call.operation})"
    if call.result == "failed":
        return warning(Name.HOOK_FAILED, f"{text}, and failed or took too long: see 'journalctl -t papr-hook'")
    if call.result == "refused":
        return note(Name.HOOK_CALL, f"{text}, and refused the start: see 'journalctl -t papr-hook'")
    return note(Name.HOOK_CALL, f"{text}, and let it go on" if call.result else text)


def judge_gateway(facts: GatewayFacts) -> Iterator[Diagnostic]:
    """Yield what is found about the gateway."""
    if not facts.is_enabled:
        text = (
            "the gateway is not enabled: the hook refuses a non-compliant guest once, and lays it out; "
            "'papr-hook gateway enable' enables it"
        )
        yield note(Name.GATEWAY_OFF, text)
        return
    daemons = [daemon for daemon in facts.daemons if daemon.is_there]
    if not daemons:
        text = "the gateway is enabled, but neither libvirtd nor virtqemud has a socket: start libvirt's daemon"
        yield error(Name.GATEWAY_DOWN, text)
    for daemon in daemons:
        yield from _judge_daemon(daemon)


def _judge_daemon(daemon: DaemonFacts) -> Iterator[Diagnostic]:
    service = f"papr-hook-gateway@{daemon.name}"
    clients, upstream = daemon.clients, daemon.upstream
    if clients.is_link:
        text = (
            f"leads to {daemon.name}'s own socket, because the gateway cannot be started, so clients bypass it: "
            f"'journalctl -u {service}' has the reason"
        )
        yield error(Name.GATEWAY_BYPASSED, text, clients.path)
    elif not clients.listens:
        text = f"has no listener, so clients cannot connect: run 'systemctl restart papr-hook-{daemon.name}.socket'"
        yield error(Name.GATEWAY_DOWN, text, clients.path)
    elif daemon.answers and not upstream.listens:
        text = f"is {daemon.name}'s own socket, not the gateway's: run 'papr-hook gateway enable'"
        yield error(Name.GATEWAY_ELSEWHERE, text, clients.path)
    elif not daemon.answers:
        text = f"gives no answer: see 'journalctl -t papr-hook -u {service} -u {daemon.name}'"
        yield error(Name.GATEWAY_DOWN, text, clients.path)
    else:
        yield note(Name.GATEWAY_UP, f"is the gateway's, in front of {upstream.path}", clients.path)
    if not clients.is_link and None not in (clients.owner, upstream.owner) and clients.owner != upstream.owner:
        text = (
            f"has {clients.owner}, but {daemon.name}'s own socket {upstream.owner}: run "
            f"'chown --reference={upstream.path} {clients.path}' and the same with chmod"
        )
        yield error(Name.GATEWAY_SOCKET, text, clients.path)
    for name in daemon.network:
        text = f"{name} is open, and its clients bypass the gateway: close it, and have them use qemu+ssh://HOST/system"
        yield warning(Name.NETWORK_CLIENTS, text)
    if clients.is_link:
        return
    for process in daemon.direct:
        text = f"is connected to {upstream.path}, so it bypasses the gateway: have it use {clients.path}"
        yield warning(Name.DIRECT_CLIENT, text, f"{process.name} (process {process.pid})")


def judge_libvirt(facts: LibvirtFacts, software: str, hook: HookFacts | None) -> Iterator[Diagnostic]:
    """Yield what is found about libvirt and its guests.

    Args:
        facts: What libvirt says.
        software: The versions of papr-hook and what it runs on, separated by commas.
        hook: The hook, or None if libvirt is another host's.
    """
    if facts.error:
        yield error(Name.LIBVIRT_UNREACHABLE, f"{facts.error}: start libvirt's daemon, or pass another URI with -c")
        yield note(Name.VERSIONS, software)
        return
    yield note(Name.VERSIONS, f"libvirt {_version(facts.libvirt)}, QEMU {_version(facts.qemu)}, {software}")
    if _split_version(facts.libvirt) < OLDEST_LIBVIRT:
        text = f"libvirt {_version(facts.libvirt)} gives a guest only one PHB: upgrade to 3.6 or later"
        yield error(Name.LIBVIRT_TOO_OLD, text)
    ours = [file.path for file in hook.files if file.is_ours] if hook is not None else []
    runs_qemu_d = _split_version(facts.libvirt) >= FIRST_LIBVIRT_WITH_QEMU_D
    if not runs_qemu_d and ours and all(path.parent.name == "qemu.d" for path in ours):
        text = f"is not run by libvirt {_version(facts.libvirt)}: upgrade to 6.5 or later, or move it to hooks/qemu"
        yield error(Name.LIBVIRT_TOO_OLD, text, str(ours[0]))
    for guest in facts.noncompliant:
        text = f"is started at boot, but does not comply: run 'papr-hook adopt {guest}'"
        yield error(Name.AUTOSTART, text, f"guest '{guest}'")


def judge_security(facts: SecurityFacts) -> Iterator[Diagnostic]:
    """Yield what is found about SELinux and AppArmor."""
    if facts.selinux is not None:
        booleans = "".join(f", {name} is {'on' if value else 'off'}" for name, value in facts.booleans)
        untested = ", where papr-hook is untested" if facts.selinux == "enforcing" else ""
        yield note(Name.SELINUX_STATE, f"SELinux is {facts.selinux}{untested}{booleans}")
    for line in facts.relabels:
        yield warning(Name.SELINUX_LABEL, f"{line}: run 'restorecon -Rv /etc/libvirt/hooks /usr/bin/papr-hook'")
    if facts.denials:
        text = (
            f"accesses to papr-hook's files that were denied since boot: {len(facts.denials)}; "
            f"allow them in the policy; the last: {facts.denials[-1]}"
        )
        yield warning(Name.ACCESS_DENIED, text)


def _split_version(number: int) -> tuple[int, int, int]:
    """Return a version of libvirt or QEMU, which libvirt gives as 1000000 * major + 1000 * minor + release."""
    return number // 1_000_000, number // 1000 % 1000, number % 1000


def _version(number: int) -> str:
    return ".".join(map(str, _split_version(number))) if number else "unknown"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
