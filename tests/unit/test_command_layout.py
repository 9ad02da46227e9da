"""papr-hook layout, on files and pipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.commands import _options
from tests.helpers.cli import one_line, papr_hook
from tests.helpers.fake_connection import FakeDaemon
from tests.helpers.paths import GOLDEN
from tests.helpers.sysfs import GROUPS, write_sysfs

PC = GOLDEN / "pc-shaped-in.xml"
LAID_OUT = GOLDEN / "pc-shaped-out.xml"


def test_file_and_pipe_give_the_same() -> None:
    """A file, standard input by default and standard input by name give the same."""
    wanted = LAID_OUT.read_text()
    for ran in (
        papr_hook("layout", str(PC)),
        papr_hook("layout", stdin=PC.read_bytes()),
        papr_hook("layout", "-", stdin=PC.read_bytes()),
    ):
        assert (ran.status, ran.out) == (0, wanted)
        assert all(": note: " in line for line in ran.err.splitlines())


def test_in_place_does_not_write_a_compliant_file(tmp_path: Path) -> None:
    """-i does not write a file that complies."""
    file = tmp_path / "guest.xml"
    file.write_bytes(LAID_OUT.read_bytes())
    before = file.stat()
    assert papr_hook("layout", "-i", str(file)).status == 0
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_diff_has_only_the_changes() -> None:
    """--diff prints the lines that change, and nothing for a compliant file."""
    ran = papr_hook("layout", "--diff", str(PC))
    assert ran.status == 0
    assert "-    <controller type='pci' index='1' model='pcie-root-port'>" in ran.out
    assert "name>pc-shaped" not in ran.out.replace(str(PC), "")
    assert papr_hook("layout", "--diff", str(LAID_OUT)).out == ""


def test_spares_option_overrides_all(tmp_path: Path) -> None:
    """--spares overrides the domain XML, which overrides the configuration, which overrides the default."""
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


def test_sharing_is_a_warning() -> None:
    """If there are more devices than vPHBs, a warning names the devices that share."""
    ran = papr_hook("layout", str(GOLDEN / "thirty-two-devices-in.xml"))
    assert ran.status == 0
    assert ran.out == (GOLDEN / "thirty-two-devices-out.xml").read_text()
    assert "[shared-vphb]" in ran.err
    assert "<interface> 52:54:00:00:00:1e" in ran.err


def test_sysfs_option_is_where_groups_are_read(tmp_path: Path) -> None:
    """--sysfs is where IOMMU groups are read."""
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
    assert "52:54:00:00:00:02" in ran.err
    (networks / "sriov.xml").unlink()
    active = tmp_path / "network"
    active.mkdir()
    (active / "sriov.xml").write_text("<networkstatus><network><forward mode='hostdev'/></network></networkstatus>")
    again = papr_hook("layout", "--conf", str(conf), stdin=given)
    assert again == ran


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


def test_in_place_replaces_the_file_behind_a_link(tmp_path: Path) -> None:
    """-i writes the file that a symbolic link leads to, and prints nothing."""
    file = tmp_path / "guest.xml"
    file.write_bytes(PC.read_bytes())
    link = tmp_path / "link.xml"
    link.symlink_to(file)
    ran = papr_hook("layout", "-i", str(link))
    assert (ran.status, ran.out) == (0, "")
    assert file.read_bytes() == LAID_OUT.read_bytes()
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_in_place_needs_a_file() -> None:
    """-i cannot be combined with standard input or --diff."""
    assert "-i needs a FILE" in papr_hook("layout", "-i").err
    ran = papr_hook("layout", "-i", "--diff", str(PC))
    assert ran.status == 2
    assert one_line(ran.err)


def test_in_place_reports_a_file_that_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An error while writing is one line with the file's name, and the file is unchanged."""
    file = tmp_path / "guest.xml"
    file.write_bytes(PC.read_bytes())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    ran = papr_hook("layout", "-i", str(file))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"papr-hook: {file}: No space left on device; the file is unchanged\n"
    assert file.read_bytes() == PC.read_bytes()
    assert list(tmp_path.iterdir()) == [file]


def test_verbose_reports_the_locked_memory_limit() -> None:
    """-v adds a line about locked memory to standard error."""
    ran = papr_hook("layout", "-v", str(PC))
    assert ran.err.splitlines()[-1].startswith(f"{PC}: locked-memory limit ")
    assert "locked-memory" not in papr_hook("layout", str(PC)).err


SECOND = "52:54:00:00:00:02"


def test_renamed_interfaces_are_noted() -> None:
    """Each interface that gets another name is a note with its MAC address and both names, on standard error."""
    lines = [line for line in papr_hook("layout", str(PC)).err.splitlines() if "[nic-renamed]" in line]
    assert any(f"<interface> {SECOND} moves from 0000:00:05.0 to " in line for line in lines)
    assert papr_hook("layout", str(LAID_OUT)).err == ""


def test_links_keep_the_old_names(tmp_path: Path) -> None:
    """--links writes one file for each renamed interface; --link-name overrides its name."""
    links = tmp_path / "made" / "here"
    ran = papr_hook("layout", "--links", str(links), str(PC))
    renamed = [line for line in ran.err.splitlines() if "[nic-renamed]" in line]
    assert len(list(links.iterdir())) == len(renamed) > 0
    file = links / "10-papr-hook-525400000002.link"
    assert file.read_text().endswith(f"[Match]\nMACAddress={SECOND}\n\n[Link]\nName=enp0s5\n")
    papr_hook("layout", "--links", str(links), "--link-name", f"{SECOND}=lan0", str(PC))
    assert "Name=lan0" in file.read_text()


def test_passed_through_interfaces_need_a_name(tmp_path: Path) -> None:
    """The old name of a passed-through interface is not known, so only --link-name makes a file for it."""
    emulated = b"<interface type='user'>\n      <mac address='52:54:00:00:00:02'/>"
    source = b"<source><address type='pci' domain='0' bus='1' slot='0' function='0'/></source>"
    xml = PC.read_bytes().replace(emulated, emulated.replace(b"'user'", b"'hostdev'") + source)
    arguments = ("layout", "--sysfs", str(tmp_path), "--links", str(tmp_path / "links"))
    papr_hook(*arguments, stdin=xml)
    file = tmp_path / "links" / "10-papr-hook-525400000002.link"
    assert not file.exists()
    papr_hook(*arguments, "--link-name", f"{SECOND}=enp0s5np0", stdin=xml)
    assert "Name=enp0s5np0" in file.read_text()


@pytest.mark.parametrize("text", ["eth0", "52:54:00:00:00:02", "52:54:00:00:00:02=", "52:54:00:00:00:02=a/b", "x=eth0"])
def test_link_names_have_a_mac_and_a_name(text: str) -> None:
    """Anything but MAC=NAME is a usage error."""
    ran = papr_hook("layout", "--link-name", text, str(PC))
    assert ran.status == 2
    assert one_line(ran.err)
    assert "is not MAC=NAME" in ran.err


def test_links_that_cannot_be_written(tmp_path: Path) -> None:
    """A directory for links that cannot be made is one line."""
    (tmp_path / "file").write_text("")
    ran = papr_hook("layout", "--links", str(tmp_path / "file"), str(PC))
    assert (ran.status, ran.out) == (2, "")
    assert "--links: " in ran.err


def placed(xml: str) -> set[str]:
    """Return the devices of a guest with their addresses, as show prints them."""
    lines = papr_hook("show", stdin=xml.encode()).out.splitlines()
    return {line.lstrip("│├└─ ") for line in lines if "<" in line}


def test_previous_has_the_addresses_of_devices_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--previous takes a file, or a guest by name or UUID, and a device returns to where it was there."""
    plain = (GOLDEN / "nothing-placed-in.xml").read_bytes()
    first = papr_hook("layout", stdin=plain).out
    disk = b"<disk type='file'><source file='/new'/><target dev='vdb' bus='virtio'/></disk>"
    more = plain.replace(b"<devices>", b"<devices>" + disk)
    file = tmp_path / "before.xml"
    file.write_text(first)
    daemon = FakeDaemon()
    guest = daemon.add("before", first.encode())
    monkeypatch.setattr(_options, "connect", daemon.connect)
    outputs = {papr_hook("layout", "--previous", name, stdin=more).out for name in (str(file), "before", guest.uuid)}
    assert len(outputs) == 1
    assert placed(first) < placed(outputs.pop())


def test_previous_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file is an error; domain XML that is of no use is none."""
    missing = papr_hook("layout", "--previous", "/nowhere/before.xml", str(PC))
    assert (missing.status, missing.err) == (2, "papr-hook: /nowhere/before.xml: No such file or directory\n")
    useless = tmp_path / "useless.xml"
    useless.write_text("<domain")
    plain = str(GOLDEN / "nothing-placed-in.xml")
    assert papr_hook("layout", "--previous", str(useless), plain).out == papr_hook("layout", plain).out
