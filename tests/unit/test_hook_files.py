"""Whether libvirt still runs papr-hook's hook."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.virt.hook_files import find_hook_fault, read_hooks
from tests.helpers.paths import HOOK

OURS = HOOK.read_text()
OTHERS = "#!/bin/sh\n# another program's hook\n"


def write(file: Path, text: str, mode: int = 0o755) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


@pytest.mark.parametrize(
    ("qemu", "in_dir", "fault"),
    [
        (OURS, None, None),
        (OTHERS, OURS, None),
        (OTHERS, None, "qemu is another program's"),
        (OTHERS, OTHERS, "qemu is another program's"),
        ("", None, "qemu is another program's"),
        (None, None, "qemu is missing"),
    ],
)
def test_place_of_the_hook(tmp_path: Path, qemu: str | None, in_dir: str | None, fault: str | None) -> None:
    """The hook is hooks/qemu or, beside another program's, in qemu.d; its loss is a line that says what to do."""
    for name, text in (("qemu", qemu), ("qemu.d/90-papr-hook", in_dir)):
        if text is not None:
            write(tmp_path / name, text)
    found = find_hook_fault(tmp_path)
    assert found == fault if fault is None else fault in str(found) and "install.sh" in str(found)


def test_hook_that_libvirt_cannot_run(tmp_path: Path) -> None:
    """A hook that is not executable is none."""
    write(tmp_path / "qemu", OURS, 0o644)
    assert find_hook_fault(tmp_path) is not None


def test_no_directory(tmp_path: Path) -> None:
    """Without a directory of hooks there is no hook."""
    assert "is missing" in str(find_hook_fault(tmp_path / "none"))


def test_unreadable_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may not read the hook says nothing about it."""

    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    assert find_hook_fault(tmp_path) is None


def test_hooks_in_the_order_of_their_runs(tmp_path: Path) -> None:
    """hooks/qemu comes first, then qemu.d by name; a directory is no hook."""
    write(tmp_path / "qemu", OTHERS)
    write(tmp_path / "qemu.d/90-papr-hook", OURS)
    write(tmp_path / "qemu.d/10-first", OTHERS, 0o644)
    (tmp_path / "qemu.d/20-directory").mkdir()
    found = [(hook.path.name, hook.is_ours, hook.is_executable) for hook in read_hooks(tmp_path)]
    assert found == [("qemu", False, True), ("10-first", False, False), ("90-papr-hook", True, True)]
    assert [hook.library for hook in read_hooks(tmp_path)] == [None, None, Path("/usr/share/papr-hook")]
