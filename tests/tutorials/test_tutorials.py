"""The two tutorials that started it all run cell by cell, with nothing but the import line changed."""

from __future__ import annotations

import re
from typing import Any

from tests.tutorials.cells import read_cells, run_cell, with_numbered_ids

_VISIT = re.compile(
    r"data를 <VirtualWorker id:me #objects:0>에서 <VirtualWorker id:(\w+) #objects:(\d+)>로 보냄"
)
_LOSS = re.compile(r"^tensor\(([\d.e+-]+)(, requires_grad=True)?\)$", flags=re.MULTILINE)


def test_part_1_shows_what_the_tutorial_shows() -> None:
    namespace: dict[str, Any] = {}
    expected_ids: dict[str, str] = {}
    actual_ids: dict[str, str] = {}
    for number, cell in enumerate(read_cells("part_1.txt")):
        shown = with_numbered_ids(run_cell(cell.code, namespace), actual_ids)
        assert shown == with_numbered_ids(cell.shown, expected_ids), f"cell {number}:\n{cell.code}"


def test_part_2_trains_alternately_at_bob_and_alice() -> None:
    namespace: dict[str, Any] = {}
    outputs = [run_cell(cell.code, namespace) for cell in read_cells("part_2.txt")]
    central, federated = outputs[4], outputs[-1]
    _assert_losses_fall(central, 20, suffix="")
    _assert_losses_fall(federated, 20, suffix=", requires_grad=True")
    visits = _VISIT.findall(federated)
    assert [name for name, _ in visits] == ["bob", "alice"] * 10
    # Data and target, and nothing left by earlier visits. (The notebook counted 6, in a session
    # whose cells had been run several times, as their numbers show.)
    assert {count for _, count in visits} == {"2"}


def _assert_losses_fall(text: str, number: int, suffix: str) -> None:
    losses = _LOSS.findall(text)
    assert [end for _, end in losses] == [suffix] * number
    assert float(losses[-1][0]) < float(losses[1][0])
    assert min(float(value) for value, _ in losses) >= 0
