"""The shape of the tree: layers without upward imports, sizes, and where tests and helpers are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import PROJECT

LAYERS = (
    ("errors", "model", "diagnostics", "ranges", "records"),
    ("config", "journal"),
    ("domainxml",),
    ("layout",),
    ("host", "schema", "files"),
    ("pipeline",),
    ("hotplug",),
    ("virt",),
    ("render",),
    ("hook", "gateway"),
    ("doctor",),
    ("commands",),
    ("cli",),
    ("__init__", "__main__"),
)
"""The modules and folders of papr_hook, lowest layer first. A module imports from its own layer and lower ones."""

MAX_MODULE = 400
MAX_FUNCTION = 50
"""In lines."""

SUBJECTS = {
    "architecture",
    "bad_input",
    "completion",
    "corpus",
    "docs",
    "docs_examples",
    "fuzz_domainxml",
    "fuzz_protocol",
    "golden",
    "hook_script",
    "hosts_page",
    "packaging",
    "regressions",
    "vdsm_hook",
}
"""Unit-test modules that are about more than one module of the product."""


def modules(directory: str) -> list[Path]:
    """Return the Python files below a directory of the project."""
    return sorted((PROJECT / directory).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Yield the absolute names that a file imports, with what it imports from each."""
    package = file.relative_to(PROJECT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *filter(None, (node.module or "").split("."))))
            yield from (f"{name}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> int:
    """Return the number of the layer of a module or folder of papr_hook."""
    return next(number for number, names in enumerate(LAYERS) if module in names)


@pytest.mark.parametrize("file", modules("papr_hook"), ids=lambda file: str(file.relative_to(PROJECT)))
def test_no_import_runs_upward(file: Path) -> None:
    """Each module imports from its own layer or a lower one."""
    own = layer_of(file.relative_to(PROJECT / "papr_hook").with_suffix("").parts[0])
    for name in imported(file):
        parts = name.split(".")
        if parts[0] == "papr_hook" and len(parts) > 1 and not parts[1].startswith("__"):
            assert layer_of(parts[1]) <= own, f"imports {name}"


@pytest.mark.parametrize("directory", ["papr_hook", "installer", "demo", "tests"])
def test_sizes(directory: str) -> None:
    """Modules and functions are short enough to be read at once."""
    for file in modules(directory):
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MAX_MODULE, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                assert node.end_lineno - node.lineno < MAX_FUNCTION, f"{file}: {node.name}"


def test_helpers_are_not_imported_from_test_modules() -> None:
    """Code that several test modules use is in tests/helpers or tests/harness."""
    for file in modules("tests"):
        for name in imported(file):
            assert not name.startswith(("tests.unit", "tests.property", "tests.integration", "tests.system")), (
                f"{file} imports {name}"
            )


def test_unit_tests_mirror_the_product() -> None:
    """A unit-test module is named after a module of the product, with the folder's name in front where needed."""
    names = set(SUBJECTS)
    for file in (*modules("papr_hook"), *modules("installer")):
        name = file.stem.lstrip("_")
        names |= {name, f"{file.parent.name}_{name}", f"{file.parent.name.rstrip('s')}_{name}", file.parent.name}
    for file in (PROJECT / "tests/unit").glob("test_*.py"):
        assert file.stem.partition("_")[2] in names, f"{file} is named after no module"
