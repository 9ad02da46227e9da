"""Measure the layout of a guest beside parsing and serialising its domain XML."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from lxml import etree

from bench.gateway import guest
from bench.table import Row, compare
from papr_hook.config import Config
from papr_hook.pipeline import analyze

DEVICES = (5, 31, 100, 400)
BESIDE_NICS = 1
"""The memory balloon. libvirt adds a USB controller."""


def _seconds(calls: int, step: Callable[[], object]) -> float:
    """Return the CPU time of a step."""
    began = time.process_time()
    for _ in range(calls):
        step()
    return (time.process_time() - began) / calls


def measure(rounds: int, calls: int) -> list[Row]:
    """Measure guests of a few and of many devices."""
    rows = []
    for devices in DEVICES:
        xml = guest("bench", 1, devices - BESIDE_NICS)
        rows.append(
            compare(
                f"layout, {devices} devices",
                "parse and serialise",
                rounds,
                {
                    "base": partial(_seconds, calls, lambda xml=xml: etree.tostring(etree.fromstring(xml))),  # type: ignore[misc]
                    "papr-hook": partial(_seconds, calls, lambda xml=xml: analyze(xml, Config()).apply_layout()),  # type: ignore[misc]
                },
            )
        )
    return rows
