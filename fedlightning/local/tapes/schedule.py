"""In which order the operations of a tape are made: updates as early as they can be.

An update reads and writes all of a weight. Right after the gradients have been passed on through that weight,
it is still in a cache; at the end of a step, where optimizers come, much else has been there.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedlightning.local.tapes.calls import Call


def updates_early(calls: Sequence[Call]) -> list[Call]:
    """Move calls that only write to what there is already up to the last call that they have to follow.

    Each number is computed by the same operations on the same numbers as before, so the bits are the same.

    Args:
        calls: In the order in which they were seen.
    """
    ordered: list[Call] = []
    for call in calls:
        position = len(ordered)
        if call.nature.writes and not (call.makes or call.may_raise or call.nature.draws):
            while position and _may_follow(ordered[position - 1], call):
                position -= 1
        ordered.insert(position, call)
    return ordered


def _may_follow(other: Call, update: Call) -> bool:
    """Tell whether a call may be made after an update rather than before it.

    Where it may raise, it may not: a step that fails has changed no parameter yet.
    """
    if other.is_silent or other.may_raise:
        return False
    return not (update.changes & (other.reads | other.makes) or update.reads & (other.changes | other.makes))
