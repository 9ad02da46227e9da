"""The wheel that setup.cfg describes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import PROJECT

SOURCES = ("LICENSE", "README.md", "hooks", "init.d", "man", "papr_hook", "pyproject.toml", "setup.cfg", "systemd")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build a wheel from a copy of the sources, and return the names of its files."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    source.mkdir()
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, source / name)
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(directory)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(directory / done.stdout.splitlines()[-1]) as archive:
        return archive.namelist()


def test_the_wheel_has_the_package(wheel: list[str]) -> None:
    """All modules and data files of papr_hook are in it, and no other package."""
    files = {path.relative_to(PROJECT).as_posix() for path in files_below(PROJECT / "papr_hook")}
    assert {name for name in wheel if ".dist-info/" not in name and ".data/" not in name} == files
    assert {"papr_hook/contract.xsd", "papr_hook/py.typed"} <= files


def test_the_wheel_carries_hook_units_and_pages(wheel: list[str]) -> None:
    """The hook, the units, the init scripts and the manual pages are in it, below share/."""
    carried = {name.partition(".data/data/share/")[2] for name in wheel if ".data/" in name}
    expected = {f"man/man{page.suffix[1:]}/{page.name}" for page in files_below(PROJECT / "man")}
    for directory in ("hooks", "init.d", "systemd"):
        expected |= {f"papr-hook/{path.relative_to(PROJECT)}" for path in files_below(PROJECT / directory)}
    assert carried == expected


def files_below(directory: Path) -> list[Path]:
    """Return the files below a directory, without what Python caches."""
    return [path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
