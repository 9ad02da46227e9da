"""The tree that papr-hook show prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.cli import papr_hook
from tests.helpers.paths import GOLDEN

PC = GOLDEN / "pc-shaped-in.xml"
LAID_OUT = GOLDEN / "pc-shaped-out.xml"


def test_show_draws_what_is_there() -> None:
    """The tree has each vPHB, what is on it by its address in the guest, and the spares."""
    lines = papr_hook("show", str(LAID_OUT)).out.splitlines()
    assert lines[0] == "pc-shaped  12 vPHBs, 4 spare"
    assert any(line.endswith("0002:00:01.0  <disk> vda") for line in lines)
    assert any(line.endswith("vPHB 11  PCI domain 001d  spare") for line in lines)


def test_show_draws_bridges_and_what_is_not_placed() -> None:
    """A definition is drawn as it is, bridges and all."""
    out = papr_hook("show", str(PC)).out
    assert "bus 1  pcie-root-port" in out
    assert out.index("bus 3  pcie-to-pci-bridge") < out.index("slot 01.0  <disk> vdb")
    unplaced = papr_hook("show", str(GOLDEN / "nothing-placed-in.xml")).out
    assert "no address; libvirt chooses one" in unplaced
    assert "<memballoon> (added by libvirt)" in unplaced


def test_other_encodings_than_utf_8_are_no_error(tmp_path: Path) -> None:
    """The tree of a guest with any name can be printed on any terminal."""
    file = tmp_path / "guest.xml"
    file.write_text(LAID_OUT.read_text().replace("<name>pc-shaped", "<name>Gäst-客"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "papr_hook", "show", str(file)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert done.stderr == b""
    assert done.stdout.splitlines()[0] == rb"G\xe4st-\u5ba2  12 vPHBs, 4 spare"
