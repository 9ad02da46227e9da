"""The tree that papr-hook show prints."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_long_adds_models_backing_and_drc_indexes() -> None:
    """--long says what each device is and what is behind it; otherwise the tree is short."""
    long = papr_hook("show", "--long", str(GOLDEN / "readme-out.xml")).out
    assert "<disk> vda  virtio, /var/lib/libvirt/images/web.qcow2\n" in long
    assert "<interface> 52:54:00:4a:5b:6c  virtio, default\n" in long
    assert "vPHB 2  PCI domain 0002  DRC index 0x20000002\n" in long
    short = papr_hook("show", str(GOLDEN / "readme-out.xml")).out
    assert "DRC" not in short and "virtio" not in short


def test_json_has_the_guest() -> None:
    """--json has each vPHB with its DRC index, and each device with its address in the guest."""
    shown = json.loads(papr_hook("show", "--json", str(GOLDEN / "readme-out.xml")).out)
    assert [phb["drc_index"] for phb in shown["vphbs"][:2]] == ["0x20000000", "0x20000001"]
    (disk,) = [device for device in shown["devices"] if device["device"] == "<disk> vda"]
    assert (disk["model"], disk["backing"]) == ("virtio", "/var/lib/libvirt/images/web.qcow2")
    tree = papr_hook("show", str(GOLDEN / "readme-out.xml")).out
    for device in shown["devices"]:
        assert f"{device['guest_address']}  {device['device']}" in tree
    assert papr_hook("show", "--json", str(GOLDEN / "x86-in.xml")).out == "null\n"


@pytest.mark.parametrize("columns", ["20", "200"])
def test_terminals_of_any_width(columns: str) -> None:
    """On a terminal the tree wraps at its width, and NO_COLOR leaves colours out."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": columns, "TERM": "xterm-256color", "NO_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "papr_hook", "show", str(LAID_OUT)], stdout=terminal, env=environment
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                data = os.read(controller, 65536)
            except OSError:  # the other end is closed
                break
            shown += data
            if not data:
                break
    os.close(controller)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert max(len(line) for line in text.splitlines()) <= int(columns)
    assert "\x1b[3" not in shown.decode()
