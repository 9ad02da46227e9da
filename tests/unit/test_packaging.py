"""The wheel and the source distribution that setup.cfg and MANIFEST.in describe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import GOLDEN, PROJECT

CACHES = ("*.egg-info", "__pycache__", ".git", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project, because building writes into it."""
    copy = tmp_path_factory.mktemp("build") / "source"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(*CACHES, "build"))
    return copy


@pytest.fixture(scope="module")
def files(source: Path) -> set[str]:
    """Return the files of the project, relative to it."""
    return {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def wheel(source: Path, files: set[str]) -> list[str]:
    """Build a wheel, and return the names of its files."""
    with zipfile.ZipFile(build(source, "wheel")) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def sdist(source: Path, files: set[str]) -> Path:
    """Build a source distribution."""
    return build(source, "sdist")


def build(source: Path, kind: str) -> Path:
    """Build a wheel or a source distribution as pip does, and return its path."""
    directory = source.parent
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(directory)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, text=True)
    return directory / done.stdout.splitlines()[-1]


def below(files: set[str], *directories: str) -> set[str]:
    """Return the files below some directories."""
    return {name for name in files if name.startswith(tuple(f"{directory}/" for directory in directories))}


def test_the_wheel_has_the_package(wheel: list[str], files: set[str]) -> None:
    """All modules and data files of papr_hook are in it, and no other package."""
    package = below(files, "papr_hook")
    assert {name for name in wheel if ".dist-info/" not in name and ".data/" not in name} == package
    assert {"papr_hook/contract.xsd", "papr_hook/py.typed"} <= package


def test_the_wheel_carries_what_a_packager_places(wheel: list[str], files: set[str]) -> None:
    """The hooks, units, init scripts, policy modules, manual pages and completions are in it, below share/."""
    carried = {name.partition(".data/data/share/")[2] for name in wheel if ".data/" in name}
    expected = {f"man/man{page[-1]}/{Path(page).name}" for page in below(files, "man")}
    expected |= {"bash-completion/completions/papr-hook", "zsh/site-functions/_papr-hook"}
    expected |= {f"papr-hook/{name}" for name in below(files, "hooks", "init.d", "selinux", "systemd")}
    assert carried == expected


def test_the_source_distribution_is_the_project(sdist: Path, files: set[str]) -> None:
    """It has every file of the project: install.sh, the tests, the documents, and what builds the packages."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {"PKG-INFO", *(name for name in names if name.startswith("papr_hook.egg-info/"))}
    assert {name for name in names - made if name != "setup.cfg"} == files - {"setup.cfg"}


def test_the_source_distribution_can_be_installed(sdist: Path, tmp_path: Path) -> None:
    """pip installs it without network, and papr-hook check works from there."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-index", "--no-deps"]
    place = ["--no-build-isolation", "--ignore-installed", "--prefix", str(tmp_path / "prefix")]
    subprocess.run([*pip, *place, sdist], check=True, capture_output=True, cwd=tmp_path)
    (modules,) = (tmp_path / "prefix").glob("lib/python3*/*-packages")
    environment = {**os.environ, "PYTHONPATH": str(modules)}
    command: list[str | Path] = [tmp_path / "prefix/bin/papr-hook", "check", "--conf", os.devnull, "--sysfs", tmp_path]
    for name, status in (("complies-in.xml", 0), ("pc-shaped-in.xml", 1)):
        argv = [*command, GOLDEN / name]
        done = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (status, ""), name
    assert "[pci-root-only]" in done.stdout
