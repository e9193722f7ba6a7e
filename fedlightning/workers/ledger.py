"""The record of what left a worker and what arrived. What may leave is for the policy to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedlightning.workers.policy import Decision, Egress


@dataclass(frozen=True, slots=True)
class Entry:
    """Say what passed a worker's door, summed over all that is alike.

    Args:
        direction: ``sent`` (left the worker), ``refused``, or ``received``.
        kind: The kind of egress; ``received`` for arrivals.
        item: The program, description or type of what passed.
        round: Federated round, or None outside of rounds.
        rule: The rule by which it passed or was refused.
    """

    direction: Literal["sent", "refused", "received"]
    kind: str
    item: str
    round: int | None
    rule: str


class Ledger:
    """Keep the account of a worker's traffic.

    Alike entries of one round are summed, so that the account does not grow with every fetched loss.
    """

    def __init__(self) -> None:
        self._counts: dict[Entry, tuple[int, int]] = {}

    def record(self, egress: Egress, decision: Decision) -> None:
        """Enter something that left, or was refused.

        Args:
            egress: What it is.
            decision: What the policy said.
        """
        item = egress.program or egress.description
        direction: Literal["sent", "refused"] = "sent" if decision.allowed else "refused"
        self._add(Entry(direction, egress.kind, item, egress.round, decision.rule), egress.nbytes)

    def receive(self, item: str, nbytes: int, round: int | None) -> None:
        """Enter something that arrived.

        Args:
            item: What it is.
            nbytes: Its size, in bytes.
            round: Federated round, or None outside of rounds.
        """
        self._add(Entry("received", "received", item, round, ""), nbytes)

    @property
    def entries(self) -> dict[Entry, tuple[int, int]]:
        """All entries, each with how often it occurred and its bytes altogether."""
        return dict(self._counts)

    @property
    def sent_bytes(self) -> int:
        """Bytes that have left the worker."""
        return self._bytes("sent")

    @property
    def received_bytes(self) -> int:
        """Bytes that have come to the worker."""
        return self._bytes("received")

    def _add(self, entry: Entry, nbytes: int) -> None:
        count, total = self._counts.get(entry, (0, 0))
        self._counts[entry] = (count + 1, total + nbytes)

    def _bytes(self, direction: str) -> int:
        return sum(total for entry, (_, total) in self._counts.items() if entry.direction == direction)

    def __str__(self) -> str:
        header = ("direction", "kind", "item", "round", "times", "bytes", "rule")
        rows = [
            (
                e.direction,
                e.kind,
                e.item,
                "-" if e.round is None else str(e.round),
                str(count),
                str(total),
                e.rule,
            )
            for e, (count, total) in self._counts.items()
        ]
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in [header, *rows]
        )
        return "\n".join(line.rstrip() for line in lines)
