"""papr_hook.gateway.setup.transaction: files change together or not at all, and never outside of the root."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from papr_hook.errors import SetupError
from papr_hook.gateway.setup.transaction import (
    EditFile,
    FileChange,
    MakeLink,
    RemovePath,
    Transaction,
    WriteFile,
    resolve_in,
)

CHANGES: list[FileChange] = [
    WriteFile("/etc/existing", b"new"),
    WriteFile("/etc/fresh", b"new", 0o755),
    EditFile("/etc/edited", b"new"),
    MakeLink("/etc/drop.d/link", "/usr/share/x"),
    RemovePath("/etc/directory"),
    RemovePath("/etc/gone"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a root directory with some files."""
    for directory in ("etc/directory", "srv"):
        (tmp_path / directory).mkdir(parents=True)
    for name in ("existing", "edited", "gone", "directory/inner"):
        (tmp_path / "etc" / name).write_text(f"old {name}")
    return tmp_path


def tree(root: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Return the mode and the content of everything below a directory."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(root.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (path.lstat().st_mode, content)
    return found


def test_commit(root: Path) -> None:
    """All changes are made, with their modes, and nothing is left beside them."""
    with Transaction(root) as files:
        files.stage(CHANGES)
        files.commit()
        files.finish()
    assert {path: content for path, (_, content) in tree(root).items() if content is not None} == {
        "etc/existing": b"new",
        "etc/fresh": b"new",
        "etc/edited": b"new",
        "etc/drop.d/link": "/usr/share/x",
    }
    assert (root / "etc/fresh").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("broken", range(len(CHANGES) + 1))
def test_roll_back(root: Path, broken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a commit breaks off, everything is as it was."""
    before = tree(root)
    with Transaction(root) as files:
        files.stage(CHANGES)
        renames = iter(range(100))
        rename = os.rename

        def fail(source: str, target: str) -> None:
            if next(renames) == broken:
                raise OSError(30, "Read-only file system")
            rename(source, target)

        monkeypatch.setattr(os, "rename", fail)
        with contextlib.suppress(OSError):
            files.commit()
        monkeypatch.undo()
    assert tree(root) == before


def test_full_disk_keeps_the_old_content(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New content that cannot be written leaves the old."""
    before = tree(root)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), Transaction(root) as files:
        files.stage(CHANGES)
    assert tree(root) == before


def test_killed_run_leaves_nothing_for_the_next(root: Path) -> None:
    """Leftovers of a run that was killed are removed by the next one."""
    killed = Transaction(root)
    killed.stage(CHANGES)
    with Transaction(root) as files:
        files.stage(CHANGES)
        files.commit()
        files.finish()
    assert not [path for path in tree(root) if ".papr-" in path]


def test_unchanged_files_are_not_written(root: Path) -> None:
    """A file that has its content already keeps its inode."""
    inode = (root / "etc/existing").stat().st_ino
    with Transaction(root) as files:
        files.stage([WriteFile("/etc/existing", b"old existing", 0o644)])
        files.commit()
        files.finish()
    assert (root / "etc/existing").stat().st_ino == inode


def test_edit_keeps_mode_and_attributes(root: Path) -> None:
    """Mode and extended attributes, which ACLs and labels are, stay."""
    path = root / "etc/edited"
    path.chmod(0o600)
    os.setxattr(path, "user.label", b"x")
    with Transaction(root) as files:
        files.stage([EditFile("/etc/edited", b"new")])
        files.commit()
        files.finish()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert os.getxattr(path, "user.label") == b"x"


@pytest.mark.parametrize("link", ["/srv", "../srv", "/../../srv", "/srv/../srv/."])
def test_links_stay_below_the_root(root: Path, link: str) -> None:
    """An absolute link, or one that climbs, is followed as a process with this root would."""
    (root / "etc/linked").symlink_to(link)
    with Transaction(root) as files:
        files.stage([WriteFile("/etc/linked/file", b"new")])
        files.commit()
        files.finish()
    assert (root / "srv/file").read_bytes() == b"new"


def test_link_that_leads_in_circles(root: Path) -> None:
    """A loop of links is refused."""
    (root / "etc/loop").symlink_to("/etc/loop")
    with pytest.raises(SetupError, match="too many symbolic links"):
        resolve_in(root, "/etc/loop/file")


def test_nothing_is_staged_where_libvirt_runs_everything(root: Path) -> None:
    """A hook in qemu.d is staged outside of that directory."""
    with Transaction(root) as files:
        files.stage([WriteFile("/etc/hooks/qemu.d/90-papr-hook", b"#!/bin/sh\n", 0o755)])
        assert list((root / "etc/hooks/qemu.d").iterdir()) == []
