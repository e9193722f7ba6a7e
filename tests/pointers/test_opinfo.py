"""torch's own database of operators: each computes on pointers, in every form, what it does locally.

One sample per operator here; ``make opinfo`` takes them all and prints the table.
"""

from __future__ import annotations

import pytest

from tests.pointers.opinfo.survey import survey

PARTS = 8
# What is refused in one form or another, and what the error says of it.
REFUSED = {"item": "would reveal the value"}


@pytest.mark.parametrize("part", range(PARTS))
def test_operators_equal_local_ones_bit_for_bit(part: int) -> None:
    found = survey(part=part, parts=PARTS)
    unexpected = {
        call: outcome
        for call, outcome in found.shortfalls.items()
        if outcome.verdict == "wrong" or REFUSED.get(call[1], "\0") not in outcome.reason
    }
    assert not unexpected, str(found)
    # The refusals that are listed do happen: an operator that is offered since then leaves the list.
    assert set(REFUSED) & set(found.operators) == {operator for _, operator in found.shortfalls}
    assert found.counts["forward"]["equal"] > 60
    assert found.counts["in-place"]["equal"] > 10
    assert found.counts["out"]["equal"] > 20
