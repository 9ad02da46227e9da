"""What install.sh prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from papr_hook import __version__
from papr_hook.gateway.setup.plan import Plan

from .files import COMMAND, CONF, HOOK, MAN, SHARE, UNITS, Installation


def line(name: str, text: str) -> str:
    """Return a line of a table with two columns."""
    return f"  {name:<30} {text}"


def installed(files: Installation, hook: str, plan: Plan, gateway: str, *, dry_run: bool, below: str) -> Iterator[str]:
    """Yield what was installed, or would be.

    Args:
        files: The installation.
        hook: Where its hook is.
        plan: What changed, or would.
        gateway: What became of the gateway; "" if it is enabled.
        dry_run: Whether nothing was changed.
        below: The directory of a tree to package, or "".
    """
    yield f"papr-hook {__version__} {'would be' if dry_run else 'is'} installed{f' below {below}' if below else ''}:"
    yield line(SHARE, "modules and gateway files")
    yield line(COMMAND, "command")
    yield line(hook, f"libvirt hook, after the existing {HOOK}" if files.has_foreign_hook() else "libvirt hook")
    if any(change.path.startswith(f"{UNITS}/") for change in plan.changes):
        yield line(UNITS, "papr-hook-gateway@.service and its sockets")
    yield line(MAN, f"manual pages: {' '.join(files.pages())}")
    yield line("/usr/share/bash-completion", "completion; that of zsh is in /usr/share/zsh")
    yield line(CONF, "settings: kept as they are" if files.conf_is_kept() else "settings")
    yield from gateway_lines(plan, dry_run=dry_run)
    if gateway:
        yield line("no gateway", gateway)


def selinux(*, enforcing: bool, dry_run: bool) -> str:
    """Return what became of SELinux. Args: enforcing: whether the host enforces it; dry_run: see installed()."""
    text = f"policy module papr-hook {'would be' if dry_run else 'is'} loaded"
    return line("SELinux", f"{text}; papr-hook is untested where SELinux is enforcing, as here" if enforcing else text)


def gateway_lines(plan: Plan, *, dry_run: bool) -> Iterator[str]:
    """Yield which sockets the gateway has, and what is restarted for that."""
    for daemon in plan.gated:
        yield line(daemon.socket, f"gateway; {daemon.name}'s own socket is in upstream/")
    would = "would be" if dry_run else "was"
    for restart in plan.restarts:
        others = f", and {' '.join(restart.dependents)} with it" if restart.dependents else ""
        yield line(restart.daemon.name, f"{would} restarted{others}; running guests are not affected")


def next_steps(gated: bool, autostart: Iterable[str]) -> Iterator[str]:
    """Yield what the administrator does next.

    Args:
        gated: Whether a gateway is enabled.
        autostart: The names of the guests on autostart whose layout does not comply.
    """
    yield "Running guests are not affected. A pseries guest with a non-compliant layout is"
    if gated:
        yield "laid out when it is defined, created or started. 'papr-hook adopt' lays out all now."
    else:
        yield "refused at its next cold start, and laid out: start it again then."
        yield "'papr-hook adopt' lays out all guests now."
    names = list(autostart)
    if names:
        yield f"Guests on autostart that do not comply: {' '.join(names)}"
        yield f"Lay them out before the host's next boot: papr-hook adopt {' '.join(names)}"


def uninstalled(removed: list[str], plan: Plan, *, dry_run: bool, below: str) -> Iterator[str]:
    """Yield what was removed, or would be. Args: see installed(); removed: the paths."""
    where = f" below {below}" if below else ""
    if not removed:
        yield f"papr-hook is not installed{where}: nothing to do"
        return
    yield f"papr-hook {'would be' if dry_run else 'is'} uninstalled{where}; removed:"
    yield from (f"  {path}" for path in removed)
    yield from gateway_lines(plan, dry_run=dry_run)
