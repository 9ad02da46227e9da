"""Options and fixtures that all tests share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """--regenerate writes the golden definitions from what the code does now."""
    parser.addoption("--regenerate", action="store_true", help="write the golden definitions anew")
