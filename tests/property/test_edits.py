"""A layout touches nothing but PCI controllers, addresses of devices, and what libvirt would add."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.domainxml.implicit import ImplicitDevice
from papr_hook.errors import InputError, LayoutError
from tests.helpers.generate import Case, cases
from tests.helpers.paths import CORPUS, GOLDEN

NOWHERE = Path("/nonexistent")
CONFIG = Config(sysfs=NOWHERE, domain_dir=NOWHERE, libvirt_run_dir=NOWHERE)
FILES = [*sorted(GOLDEN.glob("*-in.xml")), *(sorted((CORPUS / "pseries").glob("*.xml")) if CORPUS.is_dir() else [])]

ADDRESS = re.compile(r"\s*<address\b(?=[^>]*\stype\s*=\s*['\"]pci)[^>]*?(?:/>|>\s*</address>)")
CONTROLLER = re.compile(
    r"\s*<controller\b(?=[^>]*\stype\s*=\s*['\"]pci['\"])[^>]*?(?:/>|(?<!/)>.*?</controller\s*>)", re.DOTALL
)


def double_quoted(text: str) -> str:
    return re.sub(r"='([^'\"<>]*)'", r'="\1"', text)


def spaced(text: str) -> str:
    return re.sub(r"(?<=['\"\w])/>", " />", text)


def long_form(text: str) -> str:
    """Write <a></a> for <a/>."""
    return re.sub(r"<([\w:-]+)((?:\s+[\w:-]+=(?:'[^']*'|\"[^\"]*\"))*)\s*/>", r"<\1\2></\1>", text)


def windows(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def plain(text: str) -> str:
    return text


def one_line(text: str) -> str:
    return re.sub(r">\s+<", "><", text)


VARIANTS = (plain, double_quoted, spaced, long_form, windows, one_line)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be")


def lay_out(data: bytes) -> bytes | None:
    """Return the layout, or None if there is none."""
    try:
        result = pipeline.analyze(data, CONFIG, "ppc64le").apply_layout()
    except (InputError, LayoutError):
        return None
    assert all(found.name.value != "reformatted" for found in result.diagnostics)
    return result.data


def rest(text: str, devices: set[str], added: list[ImplicitDevice]) -> str:
    """Return what a layout must not change in a text."""
    text = ADDRESS.sub("", CONTROLLER.sub("", text))
    # A device without children gets its address between two tags.
    for tag in devices:
        text = re.sub(rf"(<{tag}\b[^<>]*?)\s*(?:(?<!/)>\s*</{tag}>|/>)", r"\1/>", text)
    for one in added:
        attributes = "".join(rf"\s{name}=['\"]{re.escape(value)}['\"]" for name, value in one.attributes.items())
        found = re.findall(rf"\s*<{one.tag}{attributes}/>", text)
        assert found, one
        before, _, after = text.rpartition(found[-1])
        text = before + after
    return re.sub(r"\s*<devices\s*(/>|>\s*</devices>)", "", text)


def check_rest(data: bytes, encoding: str) -> None:
    made = lay_out(data)
    if made is None or made == data:
        return
    read = domainxml.read(data, "ppc64le")
    assert isinstance(read, domainxml.PseriesDomain)
    tags = {str(element.tag) for element in read.tree.getroot().iterfind("devices/*") if isinstance(element.tag, str)}
    added = [one for one in read.elements if isinstance(one, ImplicitDevice)]
    tags |= {one.tag for one in added}
    assert rest(made.decode(encoding), tags, added) == rest(data.decode(encoding), tags, [])
    assert lay_out(made) == made


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_written_ones(file: Path) -> None:
    """Golden and real domain XML, in each encoding, and in the styles of editors and tools."""
    text = file.read_bytes().decode("utf-8-sig")
    for variant in VARIANTS:
        check_rest(variant(text).encode(), "utf-8")
        check_rest(windows(variant(text)).encode("utf-16"), "utf-16")
    for encoding in ENCODINGS:
        check_rest(text.encode(encoding), encoding)


@given(cases(), st.sampled_from(VARIANTS), st.sampled_from(ENCODINGS))
def test_generated_ones(case: Case, variant: Callable[[str], str], encoding: str) -> None:
    check_rest(variant(case.data.decode()).encode(encoding), encoding)
