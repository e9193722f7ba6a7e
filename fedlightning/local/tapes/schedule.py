"""In which order the operations of a tape are made: updates as early as they can be.

An update reads and writes all of a weight. Right after the gradients have been passed on through that weight,
it is still in a cache; at the end of a step, where optimizers come, much else has been there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedlightning.local.tapes.calls import Call


def updates_early(calls: Sequence[Call]) -> list[Call]:
    """Move calls that only write to what there is already up to the last call that they have to follow.

    Each number is computed by the same operations on the same numbers as before, so the bits are the same.

    Args:
        calls: In the order in which they were seen.
    """
    ordered: list[_Placed] = []
    for placed in map(_Placed.of, calls):
        call, position = placed.call, len(ordered)
        if placed.changes and not (placed.makes or call.may_raise or call.nature.draws):
            while position and _may_follow(ordered[position - 1], placed):
                position -= 1
        ordered.insert(position, placed)
    return [placed.call for placed in ordered]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A call and what its place depends on, found once: each is compared with many others.

    Args:
        call: The call.
        stays: Whether no update may go before it. Where it may raise: a step that fails has changed no
            parameter yet.
        reads: The memory that it takes.
        makes: The memory that its results are in.
        changes: The memory that it writes to.
    """

    call: Call
    stays: bool
    reads: set[int]
    makes: set[int]
    changes: set[int]

    @classmethod
    def of(cls, call: Call) -> _Placed:
        """Look at a call.

        Args:
            call: The call.
        """
        return cls(call, call.is_silent or call.may_raise, call.reads, call.makes, call.changes)


def _may_follow(other: _Placed, update: _Placed) -> bool:
    """Tell whether a call may be made after an update rather than before it."""
    if other.stays or not update.reads.isdisjoint(other.makes):
        return False
    return update.changes.isdisjoint(other.reads) and update.reads.isdisjoint(other.changes)
