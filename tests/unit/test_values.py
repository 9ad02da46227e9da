"""Attributes, parsed the way libvirt parses them."""

from __future__ import annotations

import pytest
from lxml import etree

from papr_hook.domainxml.values import parse_decimal, parse_number, read_decimal, read_number, shorten
from papr_hook.errors import InputError


def element(value: str) -> etree._Element:
    new = etree.Element("a")
    new.set("n", value)
    return new


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("10", 10), ("010", 8), ("0x1F", 31), (" +7", 7), ("0" * 9999 + "7", 7), ("0x" + "0" * 9999 + "7", 7)],
)
def test_a_number_in_any_base(text: str, number: int) -> None:
    assert read_number(element(text), "n", 9, 31) == number
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "08", "-1", "1 ", "0x", "1.0", "\u0663", "one"])
def test_not_a_number(text: str) -> None:
    with pytest.raises(InputError, match="is not a number"):
        read_number(element(text), "n", 9, 31)
    assert parse_number(text) is None


@pytest.mark.parametrize("text", ["32", "0x20", "9" * 5000, "0x" + "f" * 5000])
def test_a_number_that_is_too_large(text: str) -> None:
    """Thousands of digits are no work, and the message is short."""
    with pytest.raises(InputError, match="is more than 0x1f") as caught:
        read_number(element(text), "n", 9, 31)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("010", 10), (" +7", 7), ("4294967295", 2**32 - 1)])
def test_a_decimal_number(text: str, number: int) -> None:
    assert read_decimal(element(text), "n") == number


@pytest.mark.parametrize(
    ("text", "says"), [("0x1", "not a non-negative integer"), ("4294967296", "too large"), ("9" * 5000, "too large")]
)
def test_not_a_decimal_number(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_decimal(element(text), "n")


def test_an_absent_attribute() -> None:
    assert read_number(etree.Element("a"), "n", 9, 31) == 9
    assert read_decimal(etree.Element("a"), "n") is None


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("", None), ("\u00b2", None), ("9" * 30, None), ("-1", None)])
def test_digits(text: str, number: int | None) -> None:
    assert parse_decimal(text) == number


def test_quoted_text_is_one_short_line() -> None:
    assert shorten("a\nb") == "a b"
    assert shorten("x" * 100) == "x" * 40 + "..."


def test_the_message_names_the_place() -> None:
    root = etree.fromstring("<devices>\n<disk><address bus='x'/></disk></devices>")
    with pytest.raises(InputError, match="^line 2: <address> of <disk>: bus='x' is not a number$"):
        read_number(root[0][0], "bus", 0, 255)
