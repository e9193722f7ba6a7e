"""Optimizer states in rows are those that memories of the workers would keep, tensor by tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import SGD

from fedlightning.local.kept_states import KeptStates
from fedlightning.local.memory import WorkerMemory
from fedlightning.local.state_rows import StateTable, layout_of_tensors

WORKERS = ("a", "b", "c")


def state_of_many_kinds(seed: int) -> dict[int, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        0: {
            "step": torch.tensor(float(seed)),
            "exp_avg": torch.randn(2, 3, generator=generator, dtype=torch.float64),
            "mask": torch.tensor([True, False, True]),
        },
        3: {
            "exp_avg": torch.randn(3, 5, generator=generator).t(),
            "complex": torch.randn(2, generator=generator, dtype=torch.complex128),
            "half": torch.randn(7, generator=generator).half(),
            "none left": torch.empty(0),
        },
    }


def assert_same_state(state: Any, expected: Any) -> None:
    assert {index: list(own) for index, own in state.items()} == {
        index: list(own) for index, own in expected.items()
    }
    for index, own in expected.items():
        for name, tensor in own.items():
            found = state[index][name]
            assert (found.dtype, found.stride()) == (tensor.dtype, tensor.stride())
            assert torch.equal(found, tensor)


def table_of(states: list[Any]) -> tuple[StateTable, list[int]]:
    layout = layout_of_tensors(states[0])
    assert layout is not None
    table = StateTable(layout)
    rows = [table.take() for _ in states]
    for row, state in zip(rows, states, strict=True):
        table.write(row, state)
    return table, rows


def test_a_row_is_read_as_it_was_written() -> None:
    states = [state_of_many_kinds(seed) for seed in range(3)]
    table, rows = table_of(states)
    for row, state in zip(rows, states, strict=True):
        assert_same_state(table.read(row), state)


def test_rows_of_several_blocks_are_stacked_and_put_down_in_any_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedlightning.local.state_rows._BLOCK_WORDS", 100)
    states = [state_of_many_kinds(seed) for seed in range(7)]
    table, rows = table_of(states)
    order = [5, 0, 3, 6]
    stacks = table.stacked([rows[number] for number in order])
    for place, number in enumerate(order):
        own = [tensor for own in states[number].values() for tensor in own.values()]
        assert all(torch.equal(stack[place], tensor) for stack, tensor in zip(stacks, own, strict=True))
    assert table.columns([rows[n] for n in order], frozenset({"step"})).tolist() == [[n] for n in order]
    others = [table.take() for _ in order]
    table.write_stacked(others, stacks)
    for row, number in zip(others, order, strict=True):
        assert_same_state(table.read(row), states[number])


def test_a_state_in_use_is_put_down_if_its_tensors_are_still_the_same() -> None:
    table, (row,) = table_of([state_of_many_kinds(1)])
    state, other = table.lent(row), table.take()
    state[3]["exp_avg"].add_(1)
    assert table.write_lent(other, state)
    assert torch.equal(table.read(other)[3]["exp_avg"], table.read(row)[3]["exp_avg"] + 1)
    state[0]["step"] = torch.tensor(9.0)
    assert not table.write_lent(other, state)


NO_ROWS: dict[str, Any] = {
    "none": None,
    "a number": 3,
    "a list": [torch.zeros(1)],
    "with a gradient": torch.zeros(1, requires_grad=True),
    "expanded": torch.zeros(3).expand(2, 3),
    "with gaps": torch.eye(4)[::2],
}


@pytest.mark.parametrize("name", NO_ROWS)
def test_what_is_no_row_of_numbers_is_kept_by_itself(name: str) -> None:
    value = NO_ROWS[name]
    assert layout_of_tensors({0: {"value": value}}) is None
    states = KeptStates(lambda worker: None)
    states.put("a", {0: {"value": value}})
    kept = states.state_of("a", 1)
    assert kept is not None
    assert str(kept[0]["value"]) == str(value)


def test_rows_are_used_again() -> None:
    table, rows = table_of([state_of_many_kinds(seed) for seed in range(2)])
    for row in rows:
        table.give_back(row)
    assert table.is_empty
    assert {table.take(), table.take()} == set(rows)


class Visits:
    """Make the same visits with states in rows and with a memory for each worker."""

    def __init__(self) -> None:
        self.memories = {worker: WorkerMemory("keep") for worker in WORKERS}
        self.made: set[str] = set()
        self.states = KeptStates(lambda worker: self.memories[worker] if worker in self.made else None)
        self.expected = {worker: WorkerMemory("keep") for worker in WORKERS}
        self.parameter = torch.zeros(2, requires_grad=True)
        self.count = 0

    def visit(self, round: int, worker: str, change: str) -> None:
        """Let a visit start with what is kept, and leave something; nothing if it fails."""
        optimizer = SGD([self.parameter], lr=0.1)
        self.states.lend_to(optimizer, worker)
        start = {index: dict(own) for index, own in self.expected[worker].take_up(round).items()}
        found = dict(optimizer.state.get(self.parameter, {}))
        assert_same_values(found, start.get(0, {}))
        if change == "fails":
            return
        self.count += 1
        left: dict[str, Any] = {"momentum_buffer": torch.full((2,), float(self.count))}
        if change == "list":
            left["history"] = [torch.ones(1)]
        if change == "in place" and list(found) == list(left):
            left = {"momentum_buffer": found["momentum_buffer"].add_(1)}
        optimizer.state[self.parameter] = left
        copied = {name: v.clone() if isinstance(v, Tensor) else v for name, v in left.items()}
        self.states.take_from(optimizer, worker)
        self.expected[worker].put_down({0: copied}, round)

    def check(self, round: int) -> None:
        for worker in WORKERS:
            (kept, *_) = self.expected[worker].state_dict(round)["optimizers"] or [{}]
            if worker in self.made:
                (found, *_) = self.memories[worker].state_dict(round)["optimizers"] or [{}]
            else:
                found = self.states.state_of(worker, round) or {}
            assert_same_values(found.get(0, {}), kept.get(0, {}))


def assert_same_values(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    assert all(str(found[name]) == str(value) for name, value in expected.items())


CHANGES = st.sampled_from(["in place", "anew", "list", "fails"])
ROUNDS = st.lists(
    st.tuples(
        st.booleans(), st.lists(st.tuples(st.sampled_from(WORKERS), CHANGES), unique_by=lambda v: v[0])
    ),
    max_size=6,
)


@given(rounds=ROUNDS, made=st.dictionaries(st.integers(0, 5), st.sampled_from(WORKERS)))
def test_states_in_rows_are_those_of_memories(rounds: Any, made: dict[int, str]) -> None:
    visits, round = Visits(), 0
    for number, (again, cohort) in enumerate(rounds):
        round += 0 if again else 1  # a round that has failed is done again
        visits.states.begin(round, [worker for worker, _ in cohort])
        for worker, change in cohort:
            visits.visit(round, worker, change)
        visits.check(round)
        visits.check(round + 1)
        if number in made and made[number] not in visits.made:
            visits.states.move_to(visits.memories[made[number]], made[number])
            visits.made.add(made[number])
            visits.check(round)
            visits.check(round + 1)


def test_nothing_is_kept_after_forgetting() -> None:
    visits = Visits()
    visits.states.begin(0, WORKERS)
    visits.visit(0, "a", "anew")
    visits.states.forget()
    assert visits.states.workers == []
    assert visits.states.state_of("a", 1) is None
