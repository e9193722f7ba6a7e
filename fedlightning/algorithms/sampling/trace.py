"""Who is online in which round: read from a file, or from what the user has written down."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TypeAlias

Trace: TypeAlias = Mapping[int, Iterable[str]] | Sequence[Iterable[str]] | str | PathLike[str]
"""Names by round: a mapping, a list with one entry per round, or the path of a CSV file."""

Table: TypeAlias = tuple[frozenset[str], ...]
"""The names of those online, round by round."""

_COLUMNS = ("round", "worker")


def table_of(trace: Trace) -> Table:
    """Return a trace as a table.

    Args:
        trace: Names by round. Rounds before the last that are not mentioned have nobody.

    Raises:
        ValueError: There is no round, or one is not a number of at least 0; or the file has other columns.
    """
    rows = _read(trace) if isinstance(trace, str | PathLike) else trace
    by_round = dict(rows) if isinstance(rows, Mapping) else dict(enumerate(rows))
    for number, names in by_round.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f"trace has the round {number!r}; rounds are counted from 0.")
        if isinstance(names, str):
            raise ValueError(f"trace[{number}]={names!r} must be a list of names, such as [{names!r}].")
    if not by_round:
        raise ValueError("trace has no round. Say of at least one round who is online.")
    return tuple(frozenset(by_round.get(number, ())) for number in range(max(by_round) + 1))


def _read(path: str | PathLike[str]) -> dict[int, set[str]]:
    """Read a file with the columns ``round`` and ``worker``: a row for each round that a worker is online."""
    rounds: dict[int, set[str]] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not set(_COLUMNS) <= set(reader.fieldnames or ()):
            raise ValueError(
                f"trace={str(path)!r} has the columns {list(reader.fieldnames or ())}, expected "
                f"{', '.join(_COLUMNS)}: a row for each round that a worker is online."
            )
        for row in reader:
            if not (row["round"] or "").strip().isdecimal():
                raise ValueError(
                    f"trace={str(path)!r}, line {reader.line_num}: the round is {row['round']!r}, expected "
                    "a number from 0."
                )
            rounds.setdefault(int(row["round"]), set()).add(row["worker"])
    return rounds
