"""records: the shared methods of data classes do what those of dataclass() do."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from dataclasses import dataclass

import pytest

import papr_hook
from papr_hook.model import Phb
from papr_hook.records import Record


@dataclass(frozen=True, eq=False, repr=False)
class Shared(Record):
    """A data class with the shared methods."""

    name: str
    number: int | None = None


@dataclass(frozen=True)
class Other:
    """The same with the methods of dataclass()."""

    name: str
    number: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Single(Record):
    """A data class with one field."""

    name: str


def test_equality() -> None:
    """Two are equal if they are of one class and all of their fields are equal."""
    assert Shared("a", 1) == Shared("a", 1)
    assert Shared("a", 1) != Shared("a", 2)
    assert Shared("a", 1) != Shared("b", 1)
    assert Single("a") == Single("a")
    assert Single("a") != Shared("a")
    assert Shared("a") != Other("a")
    assert Single("a") != "a"


def test_hash() -> None:
    """Equal ones are one key, and a field that cannot be hashed is an error."""
    assert {Shared("a"): 1}[Shared("a")] == 1
    assert len({Shared("a", 1), Shared("a", 2), Shared("a", 1), Single("a")}) == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(Single([]))  # type: ignore[arg-type]


def test_text() -> None:
    """It is the constructor's call, as dataclass() writes it."""
    assert repr(Shared("a", 1)) == repr(Other("a", 1)).replace("Other", "Shared") == "Shared(name='a', number=1)"
    assert repr(Single("a")) == "Single(name='a')"


def test_fields_cannot_be_set() -> None:
    """The classes are frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Phb(1).index = 2  # type: ignore[misc]


def test_all_fields_count() -> None:
    """Each class of the product that shares the methods is frozen, makes none itself, and all of its fields count."""
    for module in pkgutil.walk_packages(papr_hook.__path__, "papr_hook."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = [record for record in Record.__subclasses__() if record.__module__.startswith("papr_hook.")]
    assert Phb.__name__ in {record.__name__ for record in found}
    for record in found:
        assert record._fields == tuple(field.name for field in dataclasses.fields(record))  # type: ignore[arg-type]
        assert not {"__eq__", "__hash__", "__repr__"} & set(vars(record)), record
        assert record.__dataclass_params__.frozen, record  # type: ignore[attr-defined]
