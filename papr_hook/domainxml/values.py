"""Attributes of domain XML, parsed the way libvirt parses them."""

from __future__ import annotations

import re

from lxml import etree

from ..errors import InputError

MAX_UINT = 0xFFFFFFFF
"""Largest number that libvirt reads into an unsigned int (virStrToLong_uip in src/util/virstring.c)."""

_ANY_BASE = re.compile(r"[ \t\n\r\f\v]*\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))\Z")
_DECIMAL = re.compile(r"[ \t\n\r\f\v]*\+?([0-9]+)\Z")
_MAX_DIGITS = 20
_MAX_QUOTED = 40


def source_line(element: etree._Element) -> int | None:
    """Return the line of the input that an element starts on, or None if it is new."""
    line: object = element.sourceline
    return line if isinstance(line, int) else None


def read_number(element: etree._Element, name: str, default: int, maximum: int) -> int:
    """Return an attribute as strtoul with base 0 reads it: 0x for hexadecimal, 0 for octal.

    Args:
        element: The element.
        name: The attribute's name.
        default: The result if the attribute is absent.
        maximum: The largest number allowed.

    Raises:
        InputError: The attribute is not a number, or is too large.
    """
    text = element.get(name)
    if text is None:
        return default
    value = parse_number(text)
    if value is None and _ANY_BASE.match(text) is None:
        raise _bad(element, name, text, "not a number")
    if value is None or value > maximum:
        raise _bad(element, name, text, f"more than {maximum:#x}")
    return value


def parse_number(text: str) -> int | None:
    """Return a number as strtoul with base 0 reads it, or None if it is no number or very large."""
    match = _ANY_BASE.match(text)
    if match is None:
        return None
    hexadecimal, octal, decimal = match.groups()
    return parse_digits(hexadecimal or octal or decimal, 16 if hexadecimal else 8 if octal else 10)


def read_decimal(element: etree._Element, name: str) -> int | None:
    """Return an attribute that libvirt reads as a non-negative decimal integer, or None if absent.

    Args:
        element: The element.
        name: The attribute's name.

    Raises:
        InputError: The attribute is not such an integer, or does not fit an unsigned int.
    """
    text = element.get(name)
    if text is None:
        return None
    match = _DECIMAL.match(text)
    if match is None:
        raise _bad(element, name, text, "not a non-negative integer")
    value = parse_digits(match.group(1))
    if value is None or value > MAX_UINT:
        raise _bad(element, name, text, "too large")
    return value


def parse_digits(digits: str, base: int = 10) -> int | None:
    """Return the number that ASCII digits stand for, or None if it is longer than any that libvirt takes.

    The limit comes first: int() takes quadratic time on long text, and newer Pythons refuse it.

    Args:
        digits: One or more digits, without a sign or prefix.
        base: Their base.
    """
    significant = digits.lstrip("0")
    return int(significant or "0", base) if len(significant) <= _MAX_DIGITS else None


def parse_decimal(text: str) -> int | None:
    """Return the number that a text of ASCII digits stands for, or None if it is anything else."""
    return parse_digits(text) if text.isascii() and text.isdigit() else None


def shorten(text: str) -> str:
    """Return a text as a message quotes it: on one line, and cut if it is long."""
    line = " ".join(text.split()) if "\n" in text else text
    return line if len(line) <= _MAX_QUOTED else f"{line[:_MAX_QUOTED]}..."


def _bad(element: etree._Element, name: str, text: str, why: str) -> InputError:
    parent = element.getparent()
    inside = f" of <{parent.tag}>" if parent is not None and parent.tag != "devices" else ""
    return InputError(f"<{element.tag}>{inside}: {name}='{shorten(text)}' is {why}", source_line(element))
