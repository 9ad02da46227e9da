"""The picture that papr-hook show writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from lxml import etree

from tests.helpers.cli import papr_hook
from tests.helpers.paths import GOLDEN

LAID_OUT = GOLDEN / "pc-shaped-out.xml"
SVG = "{http://www.w3.org/2000/svg}"
CHARACTER = 7.83
"""The width of a character of DejaVu Sans Mono, the widest of the usual fonts, at 13 pixels."""


@dataclass(frozen=True)
class Box:
    """A rectangle of a picture, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def contains(self, other: Box) -> bool:
        """Return whether another box is within this one."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def overlaps(self, other: Box) -> bool:
        """Return whether another box has a point of this one."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def draw(xml: bytes | Path, file: Path, *options: str) -> etree._Element:
    """Draw a guest, and return the picture."""
    data = xml.read_bytes() if isinstance(xml, Path) else xml
    ran = papr_hook("show", *options, "--svg", str(file), stdin=data)
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    return etree.parse(str(file)).getroot()


def boxes(picture: etree._Element) -> list[Box]:
    """Return the boxes of a picture: of vPHBs, endpoints, devices and bridges."""
    found = []
    for rect in picture.iter(f"{SVG}rect"):
        if rect.get("class") != "background":
            x, y, width, height = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
            found.append(Box(x, y, x + width, y + height))
    return found


def texts(picture: etree._Element) -> list[tuple[Box, str]]:
    """Return the lines of text of a picture, with the space that they take."""
    found = []
    for text in picture.iter(f"{SVG}text"):
        line = "".join(str(part) for part in text.itertext())
        x, y = float(text.get("x", "")), float(text.get("y", ""))
        found.append((Box(x, y - 10, x + len(line) * CHARACTER, y + 3), line))
    return found


def with_disks(number: int) -> bytes:
    """Return domain XML with a number of disks, each on a vPHB."""
    disks = "".join(
        f"<disk type='file'><source file='/var/lib/libvirt/images/guest-volume-{n}.qcow2'/><target "
        f"dev='vd{chr(97 + n // 26)}{chr(97 + n % 26)}' bus='virtio'/></disk>"
        for n in range(number)
    )
    xml = (
        "<domain type='kvm'><name>disks</name><memory>1</memory><os><type arch='ppc64le' machine='pseries'>hvm</type>"
        f"</os><devices><controller type='usb' model='none'/>{disks}<memballoon model='none'/></devices></domain>"
    )
    return papr_hook("layout", "--spares", "0", stdin=xml.encode()).out.encode()


def assert_tidy(picture: etree._Element) -> None:
    """Assert that boxes and texts are in the picture, no two boxes overlap, and each text but the title is in a box."""
    page = Box(0, 0, *(float(picture.get(name, "")) for name in ("width", "height")))
    drawn, (title, *lines) = boxes(picture), texts(picture)
    assert all(page.contains(box) for box in (title[0], *drawn))
    assert not [pair for pair in combinations(drawn, 2) if pair[0].overlaps(pair[1])]
    for place, line in lines:
        assert any(box.contains(place) for box in drawn), line


@pytest.mark.parametrize("number", [1, 2, 7, 15, 30, 31])
@pytest.mark.parametrize("options", [(), ("--long",)], ids=["short", "long"])
def test_pictures_of_any_size(tmp_path: Path, number: int, options: tuple[str, ...]) -> None:
    """From 1 to 31 vPHBs, each has a box of its own with its device beside it."""
    xml = with_disks(number)
    picture = draw(xml, tmp_path / "guest.svg", *options)
    assert_tidy(picture)
    vphbs = len(re.findall("model='pci-root'", xml.decode()))
    assert len(boxes(picture)) == vphbs + number
    assert sum(line.startswith("vPHB ") for _, line in texts(picture)) == vphbs


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.xml")), ids=lambda file: str(file.stem))
def test_pictures_of_all_kinds(tmp_path: Path, file: Path) -> None:
    """A picture has the text of the tree: bridges, endpoints, and devices without an address as well."""
    tree = papr_hook("show", "--long", str(file)).out
    if tree.startswith("not a pseries guest"):
        return
    picture = draw(file, tmp_path / "guest.svg", "--long")
    assert_tidy(picture)
    words = " ".join(line for _, line in texts(picture)).split()
    assert words == re.sub("[│├└─]", " ", tree).split()


def test_a_picture_needs_no_network(tmp_path: Path) -> None:
    """It refers to nothing, and has colours for dark pages."""
    file = tmp_path / "guest.svg"
    draw(LAID_OUT, file)
    text = file.read_text()
    assert "url(" not in text
    assert re.findall('https?://[^"]*', text) == ["http://www.w3.org/2000/svg"]
    assert "prefers-color-scheme: dark" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    """A name with characters of XML, or with wide ones, is drawn as it is."""
    xml = LAID_OUT.read_text().replace("<name>pc-shaped", "<name>a&lt;b&amp;c 客")
    picture = draw(xml.encode(), tmp_path / "guest.svg")
    assert picture.findtext(f"{SVG}title") == "a<b&c 客"
    assert texts(picture)[0][1].startswith("a<b&c 客")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """One line has the reason."""
    ran = papr_hook("show", "--svg", str(tmp_path), str(LAID_OUT))
    assert (ran.status, ran.err) == (2, f"papr-hook: {tmp_path}: Is a directory\n")
