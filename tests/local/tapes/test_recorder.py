"""What a step does beside computing is done in each play, too, or is not recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedlightning.local.tapes.proof import TakenStep, is_proven
from fedlightning.local.tapes.recorder import NotRecordable, Recorder
from fedlightning.local.tapes.tape import Tape


def recorded(step: Callable[[Tensor], Tensor], x: Tensor, **settings: Any) -> tuple[Tape | None, Recorder]:
    with Recorder([x], [], **settings) as recorder:
        output = step(x)
    return recorder.tape([output]), recorder


RAISING: dict[str, tuple[Callable[[Tensor], object], float]] = {
    "assertion": (lambda x: torch._assert_async(x[0] < 1), 2.0),
    "index": (lambda x: torch.ones(2).gather(0, x.long()), 2.0),
    "probability": (lambda x: F.binary_cross_entropy(x, torch.ones(3)), 2.0),
    "inverse": (lambda x: torch.linalg.inv(torch.diag(x)), 0.0),
}


@pytest.mark.parametrize("name", RAISING)
def test_errors_are_those_of_the_step_even_where_nobody_takes_the_result(name: str) -> None:
    look, wrong = RAISING[name]

    def step(x: Tensor) -> Tensor:
        look(x)
        return x * 2

    tape, recorder = recorded(step, torch.full((3,), 0.5))
    assert tape is not None, recorder.why_not
    tape.inputs[0].fill_(0.25)
    tape.play()
    assert torch.equal(tape.outputs[0], torch.full((3,), 0.5))
    with pytest.raises(RuntimeError) as expected:
        step(torch.full((3,), wrong))
    tape.inputs[0].fill_(wrong)
    with pytest.raises(type(expected.value)):
        tape.play()


UNSEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "tensor": lambda x: x * torch.tensor([x[0], 1.0, 1.0]),
    "as_tensor": lambda x: x * torch.as_tensor((1.0, x[0], 1.0)),
    "new_tensor": lambda x: x * x.new_tensor([x[0], 1.0, 1.0]),
    "apply": lambda x: x.clone().apply_(abs),
    "map": lambda x: x.clone().map_(x, max),
    "item": lambda x: x * x[0].item(),
    "list": lambda x: x * x.tolist()[0],
}


@pytest.mark.parametrize("name", UNSEEN)
def test_numbers_that_leave_torch_are_noticed(name: str) -> None:
    tape, recorder = recorded(UNSEEN[name], torch.ones(3))
    assert tape is None
    assert recorder.why_not


def test_what_may_be_written_to_afterwards_is_none_of_the_other_outputs() -> None:
    x = torch.ones(3)
    with Recorder([x], []) as recorder:
        doubled = x * 2
    assert recorder.tape([doubled], computed=[x.clone()]) is None
    assert recorder.tape([doubled[:1]], computed=[doubled]) is None
    assert recorder.tape([x], computed=[doubled]) is not None


def test_random_numbers_are_drawn_by_leave_and_from_the_default_generator_alone() -> None:
    own = torch.Generator()
    assert recorded(lambda x: x + torch.rand(3), torch.ones(3))[0] is None
    assert recorded(lambda x: x + torch.rand(3), torch.ones(3), may_draw=True)[0] is not None
    assert recorded(lambda x: x + torch.rand(3, generator=own), torch.ones(3), may_draw=True)[0] is None


def test_it_stops_before_anything_is_changed() -> None:
    count = torch.zeros(3)
    with pytest.raises(NotRecordable), Recorder([], [], stops=True):
        count.add_(1)
    assert torch.equal(count, torch.zeros(3))
    with Recorder([], [count], stops=True):
        count.add_(1)
    assert torch.equal(count, torch.ones(3))


@pytest.mark.parametrize(
    "tell", [bool, Tensor.item, Tensor.tolist, Tensor.numpy, lambda x: torch.tensor([x])]
)
def test_it_stops_before_python_is_told_of_a_value(tell: Any) -> None:
    told = []
    with pytest.raises(NotRecordable, match="tells Python"), Recorder([], [], stops=True):
        told.append(tell(torch.ones(())))
    assert not told


def test_a_value_that_is_changed_after_somebody_has_looked_at_it_is_not_played() -> None:
    for looks in (False, True):
        x = torch.ones(3)
        with Recorder([x], []) as recorder:
            value = x * 2
            if looks:
                recorder.want(value)
            value.add_(1)
        assert (recorder.tape([value]) is None) == looks


def test_no_more_is_kept_than_is_allowed() -> None:
    x = torch.ones(16)
    step = lambda x: (x * 2) * 3  # noqa: E731  # short, and used twice
    assert recorded(step, x, most_bytes=128)[0] is not None
    tape, recorder = recorded(step, x, most_bytes=127)
    assert tape is None
    assert not recorder._calls
    assert not recorder._seen


@pytest.mark.parametrize("column_first", [False, True])
def test_large_results_are_taken_where_they_come(column_first: bool) -> None:
    def step(x: Tensor) -> Tensor:
        large = F.gelu(x).softmax(1).t() if column_first else F.hardswish(x)
        large = F.silu(large.contiguous())
        return large.sort(0).values[1:] + large[1:]

    torch.manual_seed(0)
    x = torch.randn(16, 1024)
    tape, recorder = recorded(step, x)
    assert tape is not None, recorder.why_not
    for _ in range(3):
        other = torch.randn_like(x)
        tape.inputs[0].copy_(other)
        tape.play()
        assert torch.equal(tape.outputs[0], step(other))


def test_a_proof_tells_zeros_apart_by_their_signs_but_no_nans() -> None:
    def proven(*expected: float) -> bool:
        tape = Tape([], [], [torch.tensor([0.0, torch.nan])])
        return is_proven(tape, TakenStep(lambda places: None, [torch.tensor(expected)], []), [])

    assert proven(0.0, torch.nan)
    assert proven(0.0, -torch.nan)
    assert not proven(-0.0, torch.nan)
    assert not proven(0.0, 1.0)
