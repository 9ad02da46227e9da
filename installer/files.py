"""The files of an installation: which there are, which are papr-hook's, and what installing them changes."""

from __future__ import annotations

import compileall
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from papr_hook.config import sample_config
from papr_hook.errors import SetupError
from papr_hook.gateway.setup.transaction import FileChange, RemovePath, WriteFile, exists, resolve_in, write_new
from papr_hook.virt.hook_files import FIRST_LIBVIRT_WITH_QEMU_D, is_papr_hook

SHARE = "/usr/share/papr-hook"
COMMAND = "/usr/bin/papr-hook"
MAN = "/usr/share/man"
CONF = "/etc/papr-hook.conf"
HOOK = "/etc/libvirt/hooks/qemu"
HOOK_IN_DIR = "/etc/libvirt/hooks/qemu.d/90-papr-hook"
"""The last of the scripts there, because libvirt passes the message of the last one on to the client."""
UNITS = "/usr/lib/systemd/system"
BASH_COMPLETIONS = "/usr/share/bash-completion/completions"
ZSH_COMPLETIONS = "/usr/share/zsh/site-functions"
ZSH_COMPLETIONS_DEBIAN = "/usr/share/zsh/vendor-completions"
"""Debian's zsh looks there instead."""

COMMAND_TEXT = f"""\
#!/usr/bin/python3
\"\"\"The papr-hook command; its modules are in {SHARE}.\"\"\"
import sys

sys.path[0] = "{SHARE}"

from papr_hook.cli import run

run()
"""
PAGE_NAME = re.compile(r"papr-hook.*\.[158]")


@dataclass(frozen=True)
class CopyTree(FileChange):
    """Replace a directory by the parts of papr-hook that run, with their compiled modules.

    Attributes:
        source: The checkout.
        compiles: Whether to compile the modules.
    """

    source: Path
    compiles: bool = True

    def stage(self, new: Path, target: Path) -> None:
        new.mkdir()
        # hooks/qemu goes where libvirt looks.
        for part in ("papr_hook", "systemd", "init.d", "hooks", "selinux"):
            shutil.copytree(self.source / part, new / part, ignore=shutil.ignore_patterns("__pycache__", "qemu"))
        for unit in (new / "systemd").glob("papr-hook-*"):
            unit.unlink()
        (new / "papr-hook.conf").write_text(sample_config())
        for path in (new, *new.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        if self.compiles:
            compileall.compile_dir(new / "papr_hook", ddir=f"{self.path}/papr_hook", quiet=1)

    def is_done(self, target: Path) -> bool:
        return False

    def describe(self) -> str:
        return f"write {self.path}/"


@dataclass(frozen=True)
class CopyFile(FileChange):
    """Replace a file by a copy of one of the checkout."""

    source: Path
    mode: int = 0o644

    def stage(self, new: Path, target: Path) -> None:
        write_new(new, self.source.read_bytes())
        new.chmod(self.mode)

    def is_done(self, target: Path) -> bool:
        if target.is_symlink() or not target.is_file() or target.stat().st_mode & 0o7777 != self.mode:
            return False
        return target.read_bytes() == self.source.read_bytes()

    def describe(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True)
class Installation:
    """papr-hook's files, below a root directory.

    Attributes:
        root: The root directory of the host, or of a tree to package.
        source: The checkout.
    """

    root: Path
    source: Path

    def changes(self, hook: str, *, units: bool, compiles: bool) -> list[FileChange]:
        """Return what installs the files of this version, and removes those of another one.

        Args:
            hook: Where the hook goes, as choose_hook() returns it.
            units: Whether the units of systemd are installed.
            compiles: Whether to compile the modules.

        Raises:
            SetupError: A file of another program has the place of one of papr-hook's.
        """
        changes: list[FileChange] = []
        if not self.conf_is_kept():
            changes.append(WriteFile(CONF, sample_config().encode()))
        foreign = self.foreign()
        if foreign:
            raise SetupError(f"{foreign[0]} belongs to another program: remove or rename it, and run this again")
        changes.append(CopyTree(SHARE, self.source, compiles))
        changes.append(WriteFile(COMMAND, COMMAND_TEXT.encode(), 0o755))
        changes.extend(CopyFile(f"{MAN}/man{page[-1]}/{page}", self.source / "man" / page) for page in self.pages())
        changes.extend(CopyFile(path, self.source / source) for path, source in self._completions())
        changes.append(CopyFile(hook, self.source / "hooks/qemu", 0o755))
        if units:
            changes.extend(CopyFile(f"{UNITS}/{unit}", self.source / "systemd" / unit) for unit in self.units())
        placed = {change.path for change in changes}
        return [*changes, *(RemovePath(path) for path in self.installed() if path not in placed and path != CONF)]

    def removals(self) -> list[FileChange]:
        """Return what removes every file of papr-hook, but for a configuration that was changed.

        What a killed run left beside a file is removed with it, even if that file does not exist.
        """
        paths = dict.fromkeys(self.installed())
        paths.update(
            dict.fromkeys(path for path in (SHARE, COMMAND, HOOK, HOOK_IN_DIR, CONF) if not self._exists(path))
        )
        completions = (BASH_COMPLETIONS, ZSH_COMPLETIONS, ZSH_COMPLETIONS_DEBIAN)
        for directory in (*(f"{MAN}/man{section}" for section in "158"), UNITS, *completions):
            paths.update(dict.fromkeys(self._glob(directory, ".*papr-hook*.papr-*")))
        return [RemovePath(path) for path in paths if path != CONF or not self.conf_is_kept()]

    def installed(self) -> Iterator[str]:
        """Yield the paths that any version of papr-hook has here."""
        for path in (HOOK, HOOK_IN_DIR):
            if self._is_hook(path):
                yield path
        if self._exists(COMMAND) and COMMAND not in self.foreign():
            yield COMMAND
        if self._exists(SHARE):
            yield SHARE
        for section in "158":
            yield from self._glob(f"{MAN}/man{section}", "papr-hook*")
        yield from self._glob(UNITS, "papr-hook-*")
        yield from self._glob(BASH_COMPLETIONS, "papr-hook")
        for directory in (ZSH_COMPLETIONS, ZSH_COMPLETIONS_DEBIAN):
            yield from self._glob(directory, "_papr-hook")
        if self._exists(CONF):
            yield CONF

    def foreign(self) -> list[str]:
        """Return the paths where another program has a file that papr-hook would replace."""
        found = []
        if self._exists(COMMAND) and SHARE.encode() not in self._head(COMMAND):
            found.append(COMMAND)
        if self._exists(HOOK_IN_DIR) and not self._is_hook(HOOK_IN_DIR):
            found.append(HOOK_IN_DIR)
        return found

    def choose_hook(self, libvirt: tuple[int, ...] | None, *, labelled: bool = False) -> str:
        """Return where the hook goes, so that a hook of another program is kept.

        Args:
            libvirt: The host's version, or None if it is unknown.
            labelled: Whether SELinux gives the hook a label of its own, which it does in qemu.d only: elsewhere a file
                of another program may be at the path.

        Raises:
            SetupError: This libvirt runs one hook only, and that is another program's.
        """
        is_old = libvirt is not None and libvirt < FIRST_LIBVIRT_WITH_QEMU_D
        if not self._exists(HOOK) or self._is_hook(HOOK):
            return HOOK_IN_DIR if labelled and not is_old else HOOK
        if libvirt is not None and is_old:
            raise SetupError(
                f"{HOOK} belongs to another program, and libvirt {'.'.join(map(str, libvirt))} runs no other hook: "
                f"remove it, or upgrade to libvirt {'.'.join(map(str, FIRST_LIBVIRT_WITH_QEMU_D))} or later"
            )
        return HOOK_IN_DIR

    def has_foreign_hook(self) -> bool:
        """Return whether another program's hook is where libvirt looks first."""
        return self._exists(HOOK) and not self._is_hook(HOOK)

    def conf_is_kept(self) -> bool:
        """Return whether the configuration differs from what this or the installed version came with."""
        if not self._exists(CONF):
            return False
        text = self._head(CONF)
        return text not in (self._head(f"{SHARE}/papr-hook.conf"), sample_config().encode())

    def pages(self) -> list[str]:
        """Return the names of the manual pages of this version."""
        return sorted(page.name for page in (self.source / "man").iterdir() if PAGE_NAME.fullmatch(page.name))

    def units(self) -> list[str]:
        """Return the names of the units of this version."""
        return sorted(unit.name for unit in (self.source / "systemd").iterdir() if unit.is_file())

    def _completions(self) -> Iterator[tuple[str, str]]:
        """Yield where the completions of the shells go, each with its file in the checkout."""
        yield f"{BASH_COMPLETIONS}/papr-hook", "completion/papr-hook"
        zsh = ZSH_COMPLETIONS_DEBIAN if self._exists("/etc/debian_version") else ZSH_COMPLETIONS
        yield f"{zsh}/_papr-hook", "completion/_papr-hook"

    def _exists(self, path: str) -> bool:
        return exists(resolve_in(self.root, path, follow=False))

    def _head(self, path: str) -> bytes:
        """Return the start of a file, b"" if it cannot be read."""
        try:
            with resolve_in(self.root, path).open("rb") as file:
                return file.read(1 << 20)
        except OSError:
            return b""

    def _is_hook(self, path: str) -> bool:
        """Return whether a hook is papr-hook's, of any version."""
        return is_papr_hook(self._head(path).split(b"\n", 2))

    def _glob(self, directory: str, pattern: str) -> Iterator[str]:
        for path in sorted(resolve_in(self.root, directory).glob(pattern)):
            yield f"{directory}/{path.name}"
