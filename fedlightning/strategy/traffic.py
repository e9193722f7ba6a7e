"""What passes a worker's door, in bytes. Ledgers count it; this is about the part that is a visit's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedlightning.strategy.federation import Member
from fedlightning.strategy.records import VisitRecord


@dataclass(frozen=True)
class Traffic:
    """Bytes that have passed a worker's door.

    Args:
        up: Bytes that left it.
        down: Bytes that were sent to it.
    """

    up: int = 0
    down: int = 0

    @classmethod
    def of(cls, member: Member) -> Traffic:
        """Return what has passed a worker's door since its beginning."""
        ledger = member.worker.ledger
        return cls(ledger.sent_bytes, ledger.received_bytes)

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.up + other.up, self.down + other.down)

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.up - other.up, self.down - other.down)


def with_traffic_of(visits: Sequence[VisitRecord], others: Sequence[VisitRecord]) -> tuple[VisitRecord, ...]:
    """Return the records of a round's visits, with bytes and time of other visits to the same workers.

    Args:
        visits: The records.
        others: Records of what the round has asked of its workers beside.
    """
    beside = {record.worker: record for record in others}
    return tuple(
        record
        if (other := beside.get(record.worker)) is None
        else replace(
            record,
            bytes_up=record.bytes_up + other.bytes_up,
            bytes_down=record.bytes_down + other.bytes_down,
            simulated_seconds=_sum(record.simulated_seconds, other.simulated_seconds),
        )
        for record in visits
    )


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
