"""SELinux: whether a host has a policy, and the commands that load papr-hook's modules into it or remove them.

The modules are in CIL, which semodule(8) compiles on the host: no policy development package is needed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from papr_hook.gateway.setup.host import Host
from papr_hook.gateway.setup.plan import Command

from .files import SHARE

MODULES = ("papr-hook", "papr-hook-permissive")
"""The second makes the domains of the first permissive: see docs/selinux.md."""
PRIORITY = "200"
"""Of a module that comes with a package; an administrator's own modules have 400 (semodule(8))."""
SELINUX_CONFIG = "/etc/selinux/config"
ENFORCE = "/sys/fs/selinux/enforce"


def has_policy(host: Host) -> bool:
    """Return whether a host has a policy that semodule adds modules to, whether or not the kernel enforces it."""
    try:
        config = host.path(SELINUX_CONFIG).read_text()
    except OSError:
        return False
    name = re.search(r"(?m)^SELINUXTYPE=[ \t]*([\w-]+)", config)
    if name is None or shutil.which("semodule") is None:
        return False
    return any(host.path(f"/etc/selinux/{name[1]}/policy").glob("policy.*"))


def is_enforcing(host: Host) -> bool:
    """Return whether the host's kernel denies what the policy does not allow."""
    try:
        return host.path(ENFORCE).read_text().strip() == "1"
    except OSError:
        return False


def is_loaded(host: Host) -> bool:
    """Return whether an installation loaded the modules: whether their files are there."""
    return host.path(f"{SHARE}/selinux/{MODULES[0]}.cil").exists()


def load_modules() -> Command:
    """Return the command that loads the modules, or replaces those of another version."""
    argv = ["semodule", "-X", PRIORITY]
    for module in MODULES:
        argv += ["-i", f"{SHARE}/selinux/{module}.cil"]
    return Command(tuple(argv))


def remove_modules() -> Command:
    """Return the command that removes the modules. It fails if an administrator has removed them."""
    argv = ["semodule", "-X", PRIORITY]
    for module in MODULES:
        argv += ["-r", module]
    return Command(tuple(argv), may_fail=True)


def relabel(paths: Iterable[str | Path]) -> Sequence[Command]:
    """Return the commands that give files the labels of their places, on hosts that have labels."""
    if shutil.which("restorecon") is None:
        return ()
    return (Command(("restorecon", "-R", "-i", *map(str, paths)), may_fail=True),)
