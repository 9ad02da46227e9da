"""The methods that frozen data classes share, so that Python does not make them for each class.

dataclass() writes the text of each method and compiles it when a module is loaded: 0.3 ms for a class, half of it for
comparing and printing. The hook loads some thirty such classes while libvirt waits.
"""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False  # not from typing: the hook waits for each module
if TYPE_CHECKING:
    from typing import Any, ClassVar


class Record:
    """The base of a class with @dataclass(frozen=True, eq=False, repr=False): compares, hashes and prints its fields.

    Each result is the same as that of a method that dataclass() makes.
    """

    _fields: ClassVar[tuple[str, ...]]
    _values: ClassVar[attrgetter[Any]]

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)
        cls._values = attrgetter(*cls._fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record) or other.__class__ is not self.__class__:
            return NotImplemented
        return bool(self._values(self) == self._values(other))

    def __hash__(self) -> int:
        return hash(self._values(self))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{self.__class__.__qualname__}({fields})"
