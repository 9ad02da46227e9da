"""Where the tests find the project and its test data."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
GOLDEN = PROJECT / "tests/golden"
INVALID = PROJECT / "tests/invalid"
MANUAL = PROJECT / "man"
HOOK = PROJECT / "hooks/qemu"
NO_CORPUS = "no corpus of real domain XML"
"""The reason of skipped tests that need the corpus."""

CORPUS = Path(os.environ.get("PAPR_TEST_CORPUS", PROJECT.parent / "shared/corpus"))
"""Domain XML of other projects, which is not part of this one: pseries/ to lay out, other/ to leave alone."""
