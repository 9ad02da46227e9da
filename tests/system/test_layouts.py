"""Each release's libvirt as the judge: what it makes of a layout is what was asked for."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.errors import InputError, LayoutError
from papr_hook.model import Layout
from papr_hook.pipeline import Analysis
from tests.harness.booted_host import NEWEST, BootedHost
from tests.helpers.generate import Case, cases
from tests.helpers.hosts_page import assert_described
from tests.helpers.libvirt_view import STARTED, check_device_tree, disks_of, phbs, startable, without_kvm
from tests.helpers.paths import CORPUS, GOLDEN

DISKS = Path("/var/tmp/judged")
GENERATED = 60

# Defines each layout and keeps what libvirt makes of it; of one that it does not take, what it says against it, and
# whether it takes the definition as it was.
JUDGE = """
cd "$(mktemp -d)" && tar -x
judge() {
    virsh -q "define $1; dumpxml --inactive judged; undefine judged" >made 2>said && mv made "$1.made" ||
        mv said "$1.said"
}
for number in $(ls | sed -n 's/-out.xml//p'); do
    judge "$number-out.xml"
    [ -e "$number-out.xml.made" ] || judge "$number-in.xml"
done
tar -c *.said *.made
"""


def judged_definitions(crypto: bool) -> Iterator[tuple[str, bytes, Analysis, Layout, bytes]]:
    """Each golden and real definition, with its layout: a name, the definition, what was found, and the bytes."""
    corpus = sorted((CORPUS / "pseries").glob("*.xml")) if CORPUS.is_dir() else []
    files = [(file.stem, file.read_bytes()) for file in [*sorted(GOLDEN.glob("*-in.xml")), *corpus]]
    for name, data in [*files, *generated_definitions()]:
        given = without_kvm(data, crypto)
        try:
            analysis = pipeline.analyze(given, Config(), "x86_64")
            result = analysis.apply_layout()
        except (InputError, LayoutError):
            continue
        if result.layout is not None:
            yield name, given, analysis, result.layout, result.data


def generated_definitions() -> list[tuple[str, bytes]]:
    """Return some generated definitions, the same ones at each run."""
    found: list[tuple[str, bytes]] = []

    @settings(max_examples=GENERATED, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def collect(case: Case) -> None:
        found.append((f"generated {len(found)}", case.data))

    collect()
    return found


def pack(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(member.name, archive.extractfile(member)) for member in archive]
        return {name: file.read().decode() for name, file in members if file is not None}


def test_layouts(host: BootedHost) -> None:
    """libvirt takes every layout whose definition it took before, adds no PHB, and moves no device."""
    judge_layouts(host)


def test_layouts_of_the_newest_libvirt(roots: dict[str, Path]) -> None:
    """The same with the newest libvirt, which knows devices that the releases do not."""
    with BootedHost(roots[NEWEST], NEWEST) as host:
        # docs/hosts.md has the host's versions.
        assert_described(NEWEST, host.daemon, lambda *argv: host.run(*argv).stdout)
        names = judge_layouts(host)
    assert "nvme-disks-in" in names


def judge_layouts(host: BootedHost) -> set[str]:
    """Have a host's libvirt judge all layouts, and return the names of those that it takes."""
    definitions = list(judged_definitions(crypto=host.name != "bookworm"))
    files = {f"{n}-{kind}.xml": data for n, d in enumerate(definitions) for kind, data in (("in", d[1]), ("out", d[4]))}
    analyze = subprocess.run(host.argv("sh", "-c", JUDGE), input=pack(files), stdout=subprocess.PIPE, check=True)
    answers = unpack(analyze.stdout)
    taken = set()
    for number, (name, _, _, made, _) in enumerate(definitions):
        if f"{number}-out.xml.made" not in answers:
            said = answers[f"{number}-out.xml.said"]
            assert f"{number}-in.xml.made" not in answers, f"{name}: taken as it was, but not laid out: {said}"
            continue
        taken.add(name)
        found = domainxml.read(answers[f"{number}-out.xml.made"].encode()).guest
        assert found is not None
        assert not found.bridges, name
        assert phbs(found) == [(phb.index, phb.target, phb.node) for phb in made.phbs], name
        assert sorted(str(d.address) for d in found.devices) == sorted(map(str, made.addresses)), name
    print(f"{host.name}: {len(taken)} of {len(definitions)} layouts taken")
    assert len(taken) > len(list(GOLDEN.glob("*-in.xml"))) / 2
    return taken


START = """
rm -rf "$1"; mkdir -m 777 "$1"; cd "$1"; umask 0
for disk in $2; do head -c 512 /dev/zero >"$disk"; done
cat >guest.xml
virsh -q create --paused guest.xml
virsh -q qemu-monitor-command judged --hmp "dumpdtb $1/tree" >&2
virsh -q destroy judged
cat tree
"""
# These have a video, whose ROM is in a package that is not there.
WITH_ROM = {"added-by-libvirt"}


@pytest.mark.parametrize("name", sorted(set(STARTED) - WITH_ROM))
def test_device_tree(host: BootedHost, name: str) -> None:
    """Each release's QEMU: its own device tree has the PHBs and devices of the layout, each at its address."""
    definition = startable(name, DISKS)
    argv = host.argv("sh", "-ec", START, "sh", str(DISKS), " ".join(disks_of(definition)))
    done = subprocess.run(argv, input=definition, stdout=subprocess.PIPE, check=True)
    check_device_tree(definition, done.stdout)
