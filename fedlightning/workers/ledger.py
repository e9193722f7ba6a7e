"""The account of what left a worker and what arrived. What may leave is for the policy to say."""

from __future__ import annotations

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


_Key: TypeAlias = tuple[Direction, str, str, str, "int | None", str]
"""The fields of an entry."""


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
        # Lists counted up in place, and tuples for entries: there are thousands of messages a second.
        self._tallies: dict[_Key, list[int]] = {}  # times, bytes
        self._rounds: dict[int | None, list[int]] = {}  # bytes sent, bytes received, entries
        self._total = [0, 0]  # bytes sent, bytes received

    def record(self, egress: Egress, decision: Decision) -> None:
        """Enter something that left, or was refused.

        Args:
            egress: What it is.
            decision: What the policy said.
        """
        item = egress.program or egress.description
        direction: Direction = "sent" if decision.allowed else "refused"
        self._add((direction, egress.kind, item, egress.to, egress.round, decision.rule), egress.nbytes)

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
        self._add(("sent", kind, item, to, round, rule), nbytes)

    def receive(self, item: str, nbytes: int, round: int | None, to: str = "") -> None:
        """Enter something that arrived.

        Args:
            item: What it is.
            nbytes: Its size, in bytes.
            round: Federated round, or None outside of rounds.
            to: The worker's own name.
        """
        self._add(("received", "received", item, to, round, ""), nbytes)

    def withhold(self, item: str, round: int | None) -> None:
        """Enter an exception whose text was withheld: that there was one is known to the controller.

        Args:
            item: What raised.
            round: Federated round, or None outside of rounds.
        """
        rule = "the text of exceptions about private data stays"
        self._add(("withheld", "exception", item, "controller", round, rule), 0)

    @property
    def entries(self) -> dict[Entry, tuple[int, int]]:
        """All entries, each with how often it occurred and its bytes altogether."""
        # A copy, made in one step: other threads may enter something meanwhile.
        return {Entry(*key): (times, nbytes) for key, (times, nbytes) in self._tallies.copy().items()}

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
        sent, received, _ = self._rounds.get(round, (0, 0, 0))
        return Traffic(sent, received)

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

    def _add(self, key: _Key, nbytes: int) -> None:
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._begin(key)
        tally[0] += 1
        tally[1] += nbytes
        direction, _, _, _, round, _ = key
        column = _COLUMNS_OF_BYTES.get(direction)
        if column is not None:
            self._total[column] += nbytes
            self._rounds[round][column] += nbytes

    def _begin(self, key: _Key) -> list[int]:
        direction, kind, _, _, round, _ = key
        of_round = self._rounds.setdefault(round, [0, 0, 0])
        if of_round[_ENTRIES] < ITEMS_PER_ROUND:
            of_round[_ENTRIES] += 1
        else:
            key = (direction, kind, OTHERS, "", round, OTHERS)
        return self._tallies.setdefault(key, [0, 0])

    def __str__(self) -> str:
        return ledger_table.as_text(COLUMNS, self.rows())

    def _repr_html_(self) -> str:
        return ledger_table.as_html(COLUMNS, self.rows())


_SENT, _RECEIVED, _ENTRIES = range(3)
# What was refused or withheld moved no bytes.
_COLUMNS_OF_BYTES: dict[Direction, int] = {"sent": _SENT, "received": _RECEIVED}

COLUMNS = (*(field.name for field in fields(Entry)[:-1]), "times", "bytes", "rule")
"""The columns of the account, in order."""
