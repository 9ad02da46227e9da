"""The command, as a person uses it on files and pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from papr_hook import __version__
from papr_hook.config import Config
from tests.helpers.cli import papr_hook
from tests.helpers.paths import GOLDEN
from tests.helpers.sysfs import GROUPS, write_sysfs

PC = GOLDEN / "pc-shaped-in.xml"
LAID_OUT = GOLDEN / "pc-shaped-out.xml"


def test_layout_from_file_and_pipe() -> None:
    """A file and a pipe give the same."""
    wanted = LAID_OUT.read_text()
    for ran in (
        papr_hook("layout", str(PC)),
        papr_hook("layout", stdin=PC.read_bytes()),
        papr_hook("layout", "-", stdin=PC.read_bytes()),
    ):
        assert (ran.status, ran.out) == (0, wanted)
        assert "warning" not in ran.err


def test_layout_in_place_replaces_a_file_whole(tmp_path: Path) -> None:
    """-i writes the file back, through a link, with its mode, and prints nothing."""
    file = tmp_path / "guest.xml"
    file.write_bytes(PC.read_bytes())
    file.chmod(0o640)
    link = tmp_path / "link.xml"
    link.symlink_to(file)
    before = file.stat().st_ino
    ran = papr_hook("layout", "-i", str(link))
    assert (ran.status, ran.out) == (0, "")
    assert file.read_bytes() == LAID_OUT.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o640
    assert file.stat().st_ino != before
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_layout_in_place_leaves_what_complies_alone(tmp_path: Path) -> None:
    """A file that complies is not written at all."""
    file = tmp_path / "guest.xml"
    file.write_bytes(LAID_OUT.read_bytes())
    before = file.stat()
    assert papr_hook("layout", "-i", str(file)).status == 0
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_layout_in_place_where_nothing_can_be_written() -> None:
    """A file that cannot be replaced stays as it was, and one line says so."""
    ran = papr_hook("layout", "-i", "/proc/version")
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1


def test_diff_names_the_changes_only() -> None:
    """--diff shows the lines that change, and nothing for what complies."""
    ran = papr_hook("layout", "--diff", str(PC))
    assert ran.status == 0
    assert "-    <controller type='pci' index='1' model='pcie-root-port'>" in ran.out
    assert "name>pc-shaped" not in ran.out.replace(str(PC), "")
    assert papr_hook("layout", "--diff", str(LAID_OUT)).out == ""


def test_spares_option_counts_most(tmp_path: Path) -> None:
    """--spares beats the definition, which beats the configuration, which beats the default."""
    conf = tmp_path / "papr-hook.conf"
    conf.write_text("[papr-hook]\nspares = 2\n")
    plain, six = GOLDEN / "nothing-placed-in.xml", GOLDEN / "spares-6-in.xml"

    def spares(*arguments: str) -> str:
        laid_out = papr_hook("layout", *arguments).out.encode()
        return papr_hook("show", stdin=laid_out).out.splitlines()[0].split(", ")[1]

    assert spares(str(plain)) == "4 spare"
    assert spares("--conf", str(conf), str(plain)) == "2 spare"
    assert spares("--conf", str(conf), str(six)) == "6 spare"
    assert spares("--conf", str(conf), "--spares", "1", str(six)) == "1 spare"


def test_layout_warns_of_sharing() -> None:
    """More devices than vPHBs: the layout is made, and a warning names who shares."""
    ran = papr_hook("layout", str(GOLDEN / "thirty-two-devices-in.xml"))
    assert ran.status == 0
    assert ran.out == (GOLDEN / "thirty-two-devices-out.xml").read_text()
    assert "[shared-vphb]" in ran.err
    assert "<interface> 52:54:00:00:00:1e" in ran.err


def test_layout_asks_the_host_for_groups(tmp_path: Path) -> None:
    """--sysfs says where the IOMMU groups are read."""
    sysfs = write_sysfs(tmp_path, GROUPS)
    given = str(GOLDEN / "endpoint-together-in.xml")
    with_groups = papr_hook("layout", "--sysfs", str(sysfs), given).out
    assert with_groups == (GOLDEN / "endpoint-together-out.xml").read_text()
    without = papr_hook("layout", "--sysfs", str(tmp_path / "none"), given).out
    assert "IOMMU group" not in papr_hook("show", stdin=without.encode()).out
    shown = papr_hook("show", "--sysfs", str(sysfs), stdin=with_groups.encode()).out
    assert "endpoint  IOMMU group 5" in shown


def test_a_network_that_hands_out_host_devices(tmp_path: Path) -> None:
    """An interface of such a network is a host device: it never shares a vPHB."""
    conf = tmp_path / "papr-hook.conf"
    conf.write_text(f"[papr-hook]\ndomain_dir = {tmp_path}\nlibvirt_run_dir = {tmp_path}\n")
    networks = tmp_path / "networks"
    networks.mkdir()
    (networks / "sriov.xml").write_text(
        "<!-- kept by libvirt -->\n<network><name>sriov</name><forward mode='hostdev'/></network>"
    )
    definition = (GOLDEN / "thirty-two-devices-in.xml").read_bytes()
    given = definition.replace(b"<interface type='user'>", b"<interface type='network'><source network='sriov'/>", 1)
    ran = papr_hook("layout", "--conf", str(conf), stdin=given)
    assert "52:54:00:00:00:00" not in ran.err
    assert "52:54:00:00:00:01" in ran.err
    (networks / "sriov.xml").unlink()
    active = tmp_path / "network"
    active.mkdir()
    (active / "sriov.xml").write_text("<networkstatus><network><forward mode='hostdev'/></network></networkstatus>")
    again = papr_hook("layout", "--conf", str(conf), stdin=given)
    assert again == ran


def test_check_lists_violations() -> None:
    """Each violation is on a line with its line, its rule and the element."""
    ran = papr_hook("check", str(PC))
    assert ran.status == 1
    lines = ran.out.splitlines()
    assert (
        f"{PC}:14: error: <controller> pci 1 is a pcie-root-port; "
        "a pseries guest has pci-root controllers only [pci-root-only]" in lines
    )
    assert any(line.startswith(f"{PC}:28: error: <disk> vda shares vPHB 0 with <interface>") for line in lines), lines
    assert f"{PC}:33: error: <disk> vdb is at 0000:03:01.0, behind a pcie-to-pci-bridge [behind-bridge]" in lines


def test_check_complies() -> None:
    """A layout of ours complies."""
    ran = papr_hook("check", str(LAID_OUT))
    assert (ran.status, ran.out, ran.err) == (0, "complies\n", "")


def test_check_spares_are_a_warning_or_with_strict_an_error() -> None:
    """Too few spares do not break the contract, except for who asks for it."""
    ran = papr_hook("check", "--spares", "7", str(LAID_OUT))
    text = "<devices> has 4 of 7 spare vPHBs [too-few-spares]"
    assert (ran.status, ran.out) == (0, f"{LAID_OUT}: warning: {text}\n")
    strict = papr_hook("check", "--strict", "--spares", "7", str(LAID_OUT))
    assert (strict.status, strict.out) == (1, f"{LAID_OUT}: error: {text}\n")


def test_check_by_the_schema() -> None:
    """--schema names the assertion that fails; what is laid out passes."""
    ran = papr_hook("check", "--schema", str(PC))
    assert ran.status == 1
    line = "14: error: /domain/devices/controller[2]: A PCI controller is a pci-root. [pci-root-only]"
    assert f"{PC}:{line}" in ran.out.splitlines()
    assert papr_hook("check", "--schema", str(LAID_OUT)).out == "complies\n"


@pytest.mark.parametrize("name", ["x86", "powernv"])
def test_other_guests_are_not_judged(name: str) -> None:
    """Another machine's guest comes back as it is, and nothing is said against it."""
    given = GOLDEN / f"{name}-in.xml"
    assert papr_hook("layout", str(given)).out == given.read_text()
    assert papr_hook("check", str(given)).status == 0
    assert "not a pseries guest" in papr_hook("show", str(given)).out


def test_keep_is_left_alone(tmp_path: Path) -> None:
    """mode='keep' keeps, by the definition or, where that is silent, by the configuration."""
    given = GOLDEN / "keep-in.xml"
    assert papr_hook("layout", str(given)).out == given.read_text()
    assert papr_hook("check", str(given)).status == 0
    conf = tmp_path / "papr-hook.conf"
    conf.write_text("[papr-hook]\nmode = keep\n")
    kept = papr_hook("layout", "--conf", str(conf), str(PC))
    assert kept.out == PC.read_text()
    auto = GOLDEN / "spares-6-in.xml"
    made = papr_hook("layout", "--conf", str(conf), str(auto))
    assert made.out == (GOLDEN / "spares-6-out.xml").read_text()


def test_the_host_counts_where_the_definition_is_silent() -> None:
    """No architecture and no machine: the guest is what the host is."""
    given = (GOLDEN / "no-machine-in.xml").read_text().replace(" arch='ppc64le'", "")
    on_x86 = papr_hook("layout", "--host-arch", "x86_64", stdin=given.encode())
    assert on_x86.out == given
    on_power = papr_hook("layout", "--host-arch", "ppc64le", stdin=given.encode())
    assert "<target index='0'/>" in on_power.out


def test_show_draws_what_is_there() -> None:
    """The tree has each vPHB, what is on it by its address in the guest, and the spares."""
    lines = papr_hook("show", str(LAID_OUT)).out.splitlines()
    assert lines[0] == "pc-shaped  12 vPHBs, 4 spare"
    assert any(line.endswith("0002:00:01.0  <disk> vda") for line in lines)
    assert any(line.endswith("vPHB 0  PCI domain 0000  spare") for line in lines)


def test_show_draws_bridges_and_what_is_not_placed() -> None:
    """A definition is drawn as it is, bridges and all."""
    out = papr_hook("show", str(PC)).out
    assert "bus 1  pcie-root-port" in out
    assert out.index("bus 3  pcie-to-pci-bridge") < out.index("slot 01.0  <disk> vdb")
    unplaced = papr_hook("show", str(GOLDEN / "nothing-placed-in.xml")).out
    assert "without an address" in unplaced
    assert "<memballoon> (added by libvirt)" in unplaced


def test_version_and_help() -> None:
    """The version is the package's; the help names each setting's default."""
    assert papr_hook("--version").out == f"papr-hook {__version__}\n"
    text = " ".join(papr_hook("layout", "--help").out.split())
    assert f"default: {Config().spares}" in text


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """papr-hook layout | head ends quietly."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "papr_hook", "layout", str(PC)],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_the_module_is_the_command() -> None:
    """python3 -m papr_hook prints a definition byte for byte, whatever the locale."""
    done = subprocess.run(
        [sys.executable, "-m", "papr_hook", "layout"],
        input="<domain type='kvm'><name>Zoë</name></domain>".encode("iso-8859-1").replace(
            b"<domain", b"<?xml version='1.0' encoding='ISO-8859-1'?><domain"
        ),
        stdout=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        check=True,
    )
    assert "Zoë".encode("iso-8859-1") in done.stdout
