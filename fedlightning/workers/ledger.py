"""The account of what left a worker and what arrived. What may leave is for the policy to say."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, Literal, NamedTuple, TypeAlias

from fedlightning.workers import ledger_table
from fedlightning.workers.policy import Decision, Egress

Direction: TypeAlias = Literal["sent", "refused", "withheld", "received"]

# The names of items come from messages: without a limit, they could fill the worker's memory.
ITEMS_PER_ROUND = 256
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Entry:
    """Say what passed a worker's door, summed over all that is alike.

    Args:
        direction: ``sent`` (left the worker), ``refused``, ``withheld`` (an exception whose text stayed) or
            ``received``.
        kind: The kind of egress; ``received`` for arrivals, ``exception`` for what was withheld.
        item: The program, operation, description or type of what passed.
        to: Where it went, or would have gone: ``controller`` or the name of a worker.
        round: Federated round, or None outside of rounds.
        rule: The rule by which it passed or was refused.
    """

    direction: Direction
    kind: str
    item: str
    to: str
    round: int | None
    rule: str


_Kind: TypeAlias = tuple[Direction, str, str, str, str]
"""The fields of an entry but its round."""


class Traffic(NamedTuple):
    """Count the bytes that passed a worker's door.

    Args:
        sent: Bytes that left.
        received: Bytes that came.
    """

    sent: int = 0
    received: int = 0


class Ledger:
    """Keep the account of a worker's traffic.

    Alike entries of one round are summed, and each round has at most `ITEMS_PER_ROUND` of them, so that the
    account does not grow with every fetched loss. Totals are kept as running sums, not counted up when asked.

    Example:
        >>> from fedlightning.workers import VirtualWorker, in_round
        >>> bob = VirtualWorker(id="bob")
        >>> with in_round(0):
        ...     print(bob.send([1.0, 2.0]).get())
        [1.0, 2.0]
        >>> print(bob.ledger)
        direction  kind      item  to          round  times  bytes  rule
        received   received  list  bob         0      1      16
        sent       data      list  controller  0      1      16     everything may leave
        >>> bob.ledger.of_round(0)
        Traffic(sent=16, received=16)
    """

    def __init__(self) -> None:
        # Rows of plain numbers, four for each entry: a run has thousands of workers, each with some for every
        # round that it takes part in.
        self._columns = array("q")
        self._kinds: dict[_Kind, int] = {}
        self._outside: dict[_Kind, int] = {}  # where the entries outside of rounds begin
        self._inside: dict[_Kind, int] = {}  # where those of one round begin
        self._round: int | None = None  # which round that is
        self._last = _NO_ROUND
        self._total = [0, 0]  # bytes sent, bytes received

    def record(self, egress: Egress, decision: Decision) -> None:
        """Enter something that left, or was refused.

        Args:
            egress: What it is.
            decision: What the policy said.
        """
        item = egress.program or egress.description
        direction: Direction = "sent" if decision.allowed else "refused"
        self._add((direction, egress.kind, item, egress.to, decision.rule), egress.round, egress.nbytes)

    def send(self, kind: str, item: str, nbytes: int, round: int | None, rule: str, to: str) -> None:
        """Enter something that left without being asked about, where everything may.

        Args:
            kind: The kind of egress.
            item: The program or description.
            nbytes: Its size, in bytes.
            round: Federated round, or None outside of rounds.
            rule: The rule by which everything may leave.
            to: Where it went.
        """
        self._add(("sent", kind, item, to, rule), round, nbytes)

    def receive(self, item: str, nbytes: int, round: int | None, to: str = "") -> None:
        """Enter something that arrived.

        Args:
            item: What it is.
            nbytes: Its size, in bytes.
            round: Federated round, or None outside of rounds.
            to: The worker's own name.
        """
        self._add(("received", "received", item, to, ""), round, nbytes)

    def withhold(self, item: str, round: int | None) -> None:
        """Enter an exception whose text was withheld: that there was one is known to the controller.

        Args:
            item: What raised.
            round: Federated round, or None outside of rounds.
        """
        rule = "the text of exceptions about private data stays"
        self._add(("withheld", "exception", item, "controller", rule), round, 0)

    @property
    def entries(self) -> dict[Entry, tuple[int, int]]:
        """All entries, each with how often it occurred and its bytes altogether."""
        columns, kinds = self.columns()
        entries = {}
        for place in range(0, len(columns), _WIDTH):
            number, kind, times, nbytes = columns[place : place + _WIDTH]
            direction, what, item, to, rule = kinds[kind]
            round = None if number == _NO_ROUND else number
            entries[Entry(direction, what, item, to, round, rule)] = (times, nbytes)
        return entries

    def columns(self) -> tuple[list[int], list[_Kind]]:
        """Return the account as it is kept, to be sent: numbers, and what they are of."""
        # Each copied in one step: other threads may enter something meanwhile.
        return self._columns.tolist(), list(self._kinds)

    @classmethod
    def from_columns(cls, columns: Sequence[int], kinds: Sequence[_Kind]) -> Ledger:
        """Return the account that was sent.

        Args:
            columns: The numbers.
            kinds: What they are of.

        Raises:
            ValueError: They are no account.
        """
        if len(columns) % _WIDTH or any(not 0 <= kind < len(kinds) for kind in columns[_KIND::_WIDTH]):
            raise ValueError("the numbers of an account do not fit what they are said to be of")
        ledger = cls()
        ledger._columns = array("q", columns)
        ledger._kinds = {kind: number for number, kind in enumerate(kinds)}
        ledger._last = max(columns[::_WIDTH], default=_NO_ROUND)
        ledger._outside = ledger._places(_NO_ROUND)
        for kind, nbytes in zip(columns[_KIND::_WIDTH], columns[_BYTES::_WIDTH], strict=True):
            column = _COLUMNS_OF_BYTES.get(kinds[kind][0])
            if column is not None:
                ledger._total[column] += nbytes
        return ledger

    @property
    def sent_bytes(self) -> int:
        """Bytes that have left the worker."""
        return self._total[_SENT]

    @property
    def received_bytes(self) -> int:
        """Bytes that have come to the worker."""
        return self._total[_RECEIVED]

    def of_round(self, round: int | None) -> Traffic:
        """Return the bytes that passed in one federated round.

        Args:
            round: Its number; None for what happened outside of rounds.
        """
        found = [(entry.direction, n) for entry, (_, n) in self.entries.items() if entry.round == round]
        sums = [sum(n for direction, n in found if direction == way) for way in _COLUMNS_OF_BYTES]
        return Traffic(*sums)

    def rows(self) -> list[dict[str, Any]]:
        """Return the account as plain records, one for each entry, in the order of first occurrence."""
        return [
            {
                "direction": entry.direction,
                "kind": entry.kind,
                "item": entry.item,
                "to": entry.to,
                "round": entry.round,
                "times": times,
                "bytes": nbytes,
                "rule": entry.rule,
            }
            for entry, (times, nbytes) in self.entries.items()
        ]

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write the account to a file.

        Args:
            path: Where to; a file there is replaced.
        """
        ledger_table.write_csv(COLUMNS, self.rows(), path)

    def _add(self, kind: _Kind, round: int | None, nbytes: int) -> None:
        places = self._outside if round is None else self._inside
        if round is not None and round != self._round:
            places = self._turn_to(round)
        place = places.get(kind)
        if place is None:
            place = self._begin(kind, round, places)
        self._columns[place + _TIMES] += 1
        self._columns[place + _BYTES] += nbytes
        column = _COLUMNS_OF_BYTES.get(kind[0])
        if column is not None:
            self._total[column] += nbytes

    def _turn_to(self, round: int) -> dict[_Kind, int]:
        """Find where the entries of another round begin; a later one than any before has none."""
        places = self._places(round) if round <= self._last else {}
        self._inside, self._round = places, round
        self._last = max(round, self._last)
        return places

    def _places(self, round: int) -> dict[_Kind, int]:
        kinds, columns = list(self._kinds), self._columns
        rows = range(0, len(columns), _WIDTH)
        return {kinds[columns[row + _KIND]]: row for row in rows if columns[row] == round}

    def _begin(self, kind: _Kind, round: int | None, places: dict[_Kind, int]) -> int:
        if len(places) >= ITEMS_PER_ROUND:
            direction, what, *_ = kind
            kind = (direction, what, OTHERS, "", OTHERS)
            if kind in places:
                return places[kind]
        place = places[kind] = len(self._columns)
        number = self._kinds.setdefault(kind, len(self._kinds))
        self._columns.extend((_NO_ROUND if round is None else round, number, 0, 0))
        return place

    def __str__(self) -> str:
        return ledger_table.as_text(COLUMNS, self.rows())

    def _repr_html_(self) -> str:
        return ledger_table.as_html(COLUMNS, self.rows())


_WIDTH = 4
_KIND, _TIMES, _BYTES = range(1, _WIDTH)  # before them the round
_NO_ROUND = -(2**63)

_SENT, _RECEIVED = range(2)
# What was refused or withheld moved no bytes.
_COLUMNS_OF_BYTES: dict[Direction, int] = {"sent": _SENT, "received": _RECEIVED}

COLUMNS = (*(field.name for field in fields(Entry)[:-1]), "times", "bytes", "rule")
"""The columns of the account, in order."""
