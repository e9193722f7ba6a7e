"""Records of one kind, kept in columns of plain numbers: a run has thousands, and an object of each adds up.

What is in a record is for `records`; a record is made when somebody asks for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, get_type_hints, overload

from typing_extensions import override

R = TypeVar("R")


class RecordColumns(Sequence[R], Generic[R]):
    """Keep the fields of records side by side, each in a column that suits what it holds.

    Args:
        kind: The class of the records, a dataclass.

    Example:
        >>> from fedlightning.strategy import VisitRecord
        >>> visits = RecordColumns(VisitRecord)
        >>> visits.append(VisitRecord(0, "bob", 10, 2, None, {"acc": 0.5}, 100, 200))
        >>> visits[0].worker, visits[0].loss, visits[0].metrics
        ('bob', None, {'acc': 0.5})
    """

    def __init__(self, kind: type[R]) -> None:
        self._kind = kind
        self._columns = {name: _column_for(hint) for name, hint in get_type_hints(kind).items()}
        self._count = 0

    def append(self, record: R) -> None:
        """Keep one more."""
        for name, column in self._columns.items():
            column.append(getattr(record, name))
        self._count += 1

    def extend(self, records: Iterable[R]) -> None:
        """Keep some more."""
        for record in records:
            self.append(record)

    def pop(self) -> R:
        """Take the last one out."""
        last = self[-1]
        for column in self._columns.values():
            column.drop_last()
        self._count -= 1
        return last

    def values(self, name: str) -> list[Any]:
        """Return what all records have in a field.

        Args:
            name: Of the field.
        """
        column = self._columns[name]
        return [column[number] for number in range(self._count)]

    @override
    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    @override
    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        number = range(self._count)[index]  # from the end, and refused beyond it, as in a list
        return self._kind(**{name: column[number] for name, column in self._columns.items()})


class _Column(ABC):
    """The values that records have in one field."""

    @abstractmethod
    def append(self, value: Any) -> None: ...

    @abstractmethod
    def drop_last(self) -> None: ...

    @abstractmethod
    def __getitem__(self, number: int) -> Any: ...


class _Numbers(_Column):
    def __init__(self, typecode: str) -> None:
        self._values: array[Any] = array(typecode)

    @override
    def append(self, value: float) -> None:
        self._values.append(value)

    @override
    def drop_last(self) -> None:
        self._values.pop()

    @override
    def __getitem__(self, number: int) -> Any:
        return self._values[number]


class _NumbersOrNone(_Numbers):
    def __init__(self, typecode: str) -> None:
        super().__init__(typecode)
        self._there = bytearray()

    @override
    def append(self, value: float | None) -> None:
        super().append(0 if value is None else value)
        self._there.append(value is not None)

    @override
    def drop_last(self) -> None:
        super().drop_last()
        self._there.pop()

    @override
    def __getitem__(self, number: int) -> Any:
        return super().__getitem__(number) if self._there[number] else None


class _Named(_Column):
    """Numbers by name, such as metrics; names are kept once for all records that have the same."""

    def __init__(self) -> None:
        self._sets: dict[tuple[str, ...], int] = {}
        self._names: list[tuple[str, ...]] = []
        self._set_of = array("q")
        self._starts = array("q")
        self._values = array("d")

    @override
    def append(self, value: Mapping[str, float]) -> None:
        names = tuple(value)
        number = self._sets.get(names)
        if number is None:
            number = self._sets[names] = len(self._names)
            self._names.append(names)
        self._set_of.append(number)
        self._starts.append(len(self._values))
        self._values.extend(value.values())

    @override
    def drop_last(self) -> None:
        self._set_of.pop()
        del self._values[self._starts.pop() :]

    @override
    def __getitem__(self, number: int) -> dict[str, float]:
        names, start = self._names[self._set_of[number]], self._starts[number]
        return dict(zip(names, self._values[start : start + len(names)], strict=True))


class _Things(_Column):
    """Anything else; equal ones that follow one another are kept once, such as the cohort of all workers."""

    def __init__(self) -> None:
        self._values: list[Any] = []

    @override
    def append(self, value: Any) -> None:
        alike = self._values and self._values[-1] == value
        self._values.append(self._values[-1] if alike else value)

    @override
    def drop_last(self) -> None:
        self._values.pop()

    @override
    def __getitem__(self, number: int) -> Any:
        return self._values[number]


def _column_for(kind: Any) -> _Column:
    if kind in _TYPECODES:
        return _Numbers(_TYPECODES[kind])
    for number, typecode in _TYPECODES.items():
        if kind == number | None:
            return _NumbersOrNone(typecode)
    return _Named() if kind == Mapping[str, float] else _Things()


_TYPECODES: dict[Any, str] = {int: "q", float: "d"}
