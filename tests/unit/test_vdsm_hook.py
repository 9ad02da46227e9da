"""hooks/vdsm_before_vm_start, called as vdsm calls it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.cli import one_line, papr_hook
from tests.helpers.paths import GOLDEN, PROJECT

HOOK = PROJECT / "hooks/vdsm_before_vm_start"
GIVEN = (GOLDEN / "pc-shaped-in.xml").read_bytes()


@dataclass(frozen=True)
class Vdsm:
    """What starts the hook, with programs in the place of the host's.

    bin: The directory in which the hook finds programs.
    """

    bin: Path

    def before_vm_start(self, xml: bytes) -> tuple[bytes, subprocess.CompletedProcess[str]]:
        """Run the hook on a file that only this user can read (_runHooksDir in vdsm's lib/vdsm/common/hooks.py).

        Args:
            xml: The domain XML.

        Returns:
            What vdsm reads back from the path, and the process of the hook.
        """
        handle, path = tempfile.mkstemp(dir=self.bin.parent)
        os.write(handle, xml)
        os.close(handle)
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "_hook_domxml": path,
            "vmId": "0",
            "PYTHONPATH": ":/nowhere",
        }
        done = subprocess.run([HOOK], env=environment, capture_output=True, text=True, check=False)
        assert Path(path).stat().st_mode & 0o777 == 0o600
        return Path(path).read_bytes(), done


@pytest.fixture
def vdsm(tmp_path: Path) -> Vdsm:
    """Put papr-hook where the hook finds it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "papr-hook"
    command.write_text(f'#!/bin/sh\ncd {PROJECT}\nexec {sys.executable} -m papr_hook "$@"\n')
    command.chmod(0o755)
    return Vdsm(folder)


def test_a_guest_is_laid_out(vdsm: Vdsm) -> None:
    """vdsm reads back what papr-hook layout prints, and its log has the warnings."""
    xml, done = vdsm.before_vm_start(GIVEN)
    expected = papr_hook("layout", stdin=GIVEN)
    assert (done.returncode, xml.decode()) == (0, expected.out)
    assert xml != GIVEN
    assert len(done.stderr.splitlines()) == len(expected.err.splitlines())


def test_a_compliant_guest_stays(vdsm: Vdsm) -> None:
    """A compliant guest, and one of another architecture, come back byte for byte, and nothing is logged."""
    for name in ("complies-in.xml", "x86-in.xml"):
        given = (GOLDEN / name).read_bytes()
        xml, done = vdsm.before_vm_start(given)
        assert (done.returncode, xml, done.stdout, done.stderr) == (0, given, "", "")


@pytest.mark.parametrize("given", [b"", b"<domain", b"<!DOCTYPE domain><domain/>"])
def test_a_guest_that_cannot_be_laid_out_starts(vdsm: Vdsm, given: bytes) -> None:
    """The domain XML stays, and one line of the log has the reason."""
    xml, done = vdsm.before_vm_start(given)
    assert (done.returncode, xml) == (0, given)
    assert one_line(done.stderr)
    assert done.stderr.endswith("; the guest starts unchanged\n")


def test_a_host_without_the_command(vdsm: Vdsm) -> None:
    """Without papr-hook the guest starts unchanged, and the log says so."""
    (vdsm.bin / "papr-hook").unlink()
    xml, done = vdsm.before_vm_start(GIVEN)
    assert (done.returncode, xml) == (0, GIVEN)
    assert done.stderr.endswith("; the guest starts unchanged\n")


def test_a_disk_that_is_full(vdsm: Vdsm) -> None:
    """If the file cannot be replaced, the guest starts with the domain XML that it had."""
    limited = vdsm.bin / "limited"
    (vdsm.bin / "papr-hook").rename(limited)
    command = vdsm.bin / "papr-hook"
    # A file that would be longer than one block cannot be written, as on a full disk.
    command.write_text(f'#!/bin/sh\ntrap "" XFSZ\nulimit -f 1\nexec {limited} "$@"\n')
    command.chmod(0o755)
    xml, done = vdsm.before_vm_start(GIVEN)
    assert (done.returncode, xml) == (0, GIVEN)
    assert done.stderr.endswith("the file is unchanged; the guest starts unchanged\n")


def test_it_is_short() -> None:
    """An administrator can read the hook at once."""
    assert len(HOOK.read_text().splitlines()) <= 10
