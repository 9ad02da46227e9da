"""The part of install.sh that is written in Python. install.sh checks the host and its arguments first."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from papr_hook.config import LIBVIRT_RUN_DIR, STATE_DIR
from papr_hook.errors import PaprHookError
from papr_hook.gateway.setup.apply import InterruptedRunError, apply, interruptible, locked
from papr_hook.gateway.setup.host import DAEMONS, Host, Init
from papr_hook.gateway.setup.plan import Command, Plan, plan_disable, plan_enable, removals
from papr_hook.gateway.setup.transaction import FileChange, RemovePath, remove

from . import report, selinux
from .files import CONF, SHARE, Installation

SOURCE = Path(__file__).resolve().parent.parent
LOCK = "/run/papr-hook.lock"
NOTES = str(LIBVIRT_RUN_DIR / STATE_DIR)
"""The directory in which the hook marks guests and notes its last call."""
INTERRUPTED = 130


class Args(argparse.Namespace):
    """The arguments, as install.sh passes them."""

    action: str
    dry_run: bool
    hook_only: bool
    root: Path | None
    libvirt: str
    stayed: str


def main(argv: Sequence[str]) -> int:
    """Install or uninstall; return the exit status."""
    args = _parse(argv)
    try:
        with interruptible(), locked(args.root or Path(LOCK)):
            for line in _install(args) if args.action == "install" else _uninstall(args):
                print(line)
    except PaprHookError as error:
        print(f"install.sh: {error}{args.stayed}", file=sys.stderr)
        return INTERRUPTED if isinstance(error, InterruptedRunError) else 1
    return 0


def _parse(argv: Sequence[str]) -> Args:
    parser = argparse.ArgumentParser(prog="installer")
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--hook-only", action="store_true")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--libvirt", default="", help="version of libvirt")
    parser.add_argument("--stayed", default="", help="text to add to a failure")
    args = parser.parse_args(argv, Args())
    if args.root is not None and not args.dry_run:
        with contextlib.suppress(OSError):
            args.root.mkdir(parents=True, exist_ok=True)
    return args


def _install(args: Args) -> Iterator[str]:
    host = Host(args.root or Path("/"))
    files = Installation(host.root, SOURCE)
    has_selinux = args.root is None and selinux.has_policy(host)
    version = tuple(int(part) for part in args.libvirt.split(".")) if args.libvirt else None
    hook = files.choose_hook(version, labelled=has_selinux)
    gateway, plan = _gateway_plan(args, host)
    units = not args.hook_only and (args.root is not None or host.init() in (Init.SYSTEMD, Init.OFFLINE))
    plan = _with_files(plan, files.changes(hook, units=units, compiles=args.root is None), host)
    if args.root is None:
        plan = _with_labels(plan, host, has_selinux)
    lines = list(report.installed(files, hook, plan, gateway, dry_run=args.dry_run, below=str(args.root or "")))
    if has_selinux:
        lines.append(report.selinux(enforcing=selinux.is_enforcing(host), dry_run=args.dry_run))
    if not args.dry_run:
        apply(plan, host)
    yield from lines
    if args.dry_run or args.root is not None:
        return
    yield from _tell_daemons(host, plan)
    yield from report.next_steps(bool(plan.gated), _autostart())


def _gateway_plan(args: Args, host: Host) -> tuple[str, Plan]:
    """Return why the gateway is not enabled, "" if it is, and what enables or disables it."""
    if args.root is not None:
        return "run 'papr-hook gateway enable' on the host", Plan()
    if args.hook_only:
        return "as --hook-only asks for", plan_disable(host, SOURCE)
    if host.init() is Init.NONE:
        return "found neither systemd nor /etc/init.d/libvirtd to start it: see papr-hook(8)", Plan()
    return "", plan_enable(host, SOURCE, SHARE)


def _uninstall(args: Args) -> Iterator[str]:
    host = Host(args.root or Path("/"))
    files = Installation(host.root, SOURCE)
    kept = files.conf_is_kept()
    plan = plan_disable(host, SOURCE) if args.root is None else Plan(changes=tuple(removals(host, ())))
    changes = files.removals()
    plan = _with_files(replace(plan, changes=()), [*plan.changes, *changes], host)
    if args.root is None and selinux.has_policy(host) and selinux.is_loaded(host):
        load, remove_modules = selinux.load_modules(), selinux.remove_modules()
        plan = replace(plan, commands=(*plan.commands, remove_modules), restore=(load, *plan.restore))
    removed = [
        change.path
        for change in plan.changes
        if isinstance(change, RemovePath) and not change.is_done(change.target(host.root))
    ]
    if not args.dry_run:
        apply(plan, host)
    yield from report.uninstalled(removed, plan, dry_run=args.dry_run, below=str(args.root or ""))
    if not args.dry_run and args.root is None:
        remove(host.path(NOTES))
        if removed:
            yield from _tell_daemons(host, plan)
    for path in files.foreign():
        yield f"{path} belongs to another program, and is kept."
    if kept:
        yield f"{CONF} was changed, and is kept."


def _with_files(plan: Plan, changes: Sequence[FileChange], host: Host) -> Plan:
    """Return a plan that changes files as well, and has systemd read them."""
    plan = replace(plan, changes=(*changes, *plan.changes))
    if not plan.commands and host.root == Path("/") and host.init() is Init.SYSTEMD:
        reload = (Command(("systemctl", "daemon-reload")),)
        plan = replace(plan, commands=reload, restore=reload)
    return plan


def _with_labels(plan: Plan, host: Host, has_selinux: bool) -> Plan:
    """Return a plan that gives new files their SELinux labels before a service starts from them."""
    commands = list(selinux.relabel([*(change.path for change in plan.changes), NOTES]))
    restore: list[Command] = []
    if has_selinux:
        commands.insert(0, selinux.load_modules())
        restore.append(selinux.load_modules() if selinux.is_loaded(host) else selinux.remove_modules())
    return replace(plan, commands=(*commands, *plan.commands), restore=(*restore, *plan.restore))


def _tell_daemons(host: Host, plan: Plan) -> Iterator[str]:
    """Have running daemons look for their hooks again, as they do when they start (libvirt src/util/virhook.c)."""
    restarted = [restart.daemon for restart in plan.restarts]
    for daemon in DAEMONS:
        pid = host.process_of(daemon.name)
        if daemon in restarted or pid is None:
            continue
        done = host.run(["systemctl", "reload", f"{daemon.name}.service"]) if host.init() is Init.SYSTEMD else None
        if done is None or done.returncode != 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)
        yield report.line(daemon.name, "was told to look for its hooks again")


def _autostart() -> list[str]:
    """Return the names of the guests on autostart that do not comply: the hook would refuse them at the next boot."""
    # Imported late: these need lxml, which --root does without.
    from papr_hook.config import load_config
    from papr_hook.layout.check import complies
    from papr_hook.pipeline import analyze

    found = []
    with contextlib.suppress(OSError, PaprHookError):
        config = load_config()
        for file in sorted((config.domain_dir / "autostart").glob("*.xml")):
            with contextlib.suppress(OSError, PaprHookError):
                if not complies(analyze(file.read_bytes(), config).violations()):
                    found.append(file.stem)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
