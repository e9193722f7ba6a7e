"""A tape gives what the step gives that it was recorded from, on other numbers, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from fedlightning.local.vectorised.arena import Arena
from fedlightning.local.vectorised.tape import Recorder, Tape

Step = Callable[..., Sequence[Tensor]]


def recorded(step: Step, inputs: Sequence[Tensor], places: Sequence[Tensor] = ()) -> tuple[Tape | None, str]:
    with Recorder(inputs, places) as recorder:
        outputs = step(*inputs)
    return recorder.tape(outputs), recorder.why_not


def tape_of(step: Step, inputs: Sequence[Tensor], places: Sequence[Tensor] = ()) -> Tape:
    tape, why_not = recorded(step, inputs, places)
    assert tape is not None, why_not
    return tape


def played_on(tape: Tape, *inputs: Tensor) -> Sequence[Tensor]:
    for place, tensor in zip(tape.inputs, inputs, strict=True):
        place.copy_(tensor)
    tape.play()
    return tape.outputs


def test_a_backward_under_vmap_is_made_again_on_other_batches_and_other_weights() -> None:
    weights, biases = torch.randn(3, 2, 4), torch.randn(3, 2)

    def step(x: Tensor) -> list[Tensor]:
        own = [weights.detach().requires_grad_(), biases.detach().requires_grad_()]
        losses = vmap(lambda w, b, x: ((x @ w.T + b).relu() * 2).square().mean())(*own, x)
        return [losses.detach(), *torch.autograd.grad(losses.sum(), own)]

    tape = tape_of(step, [torch.randn(3, 5, 4)], [weights, biases])
    weights += 0.5
    other = torch.randn(3, 5, 4)
    for played, expected in zip(played_on(tape, other), step(other), strict=True):
        assert torch.equal(played, expected)


def test_what_a_step_writes_to_places_is_written_each_time() -> None:
    place = torch.zeros(4)

    def step(x: Tensor) -> list[Tensor]:
        halves = place.view(2, 2)
        torch._foreach_add_([halves[0], halves[1]], [x, 2 * x])
        return [place * 1]

    tape = tape_of(step, [torch.ones(2)], [place])
    (found,) = played_on(tape, torch.tensor([10.0, 20.0]))
    assert found.tolist() == place.tolist() == [11.0, 21.0, 22.0, 42.0]


def test_tapes_use_memory_one_after_the_other() -> None:
    arena, tapes = Arena(), []
    for size in (4, 3):
        with Recorder([torch.zeros(size)], []) as recorder:
            x = recorder._inputs[0]
            results = [(x + 1).exp(), ((x * 2).sin() + 1).cos()]
        tapes.append(recorder.tape(results, arena))
    for _ in range(2):
        memory = set()
        for tape, size in zip(tapes, (4, 3), strict=True):
            assert tape is not None
            x = torch.randn(size)
            first, second = played_on(tape, x)
            assert torch.equal(first, (x + 1).exp())
            assert torch.equal(second, ((x * 2).sin() + 1).cos())
            memory |= {tensor.untyped_storage().data_ptr() for tensor in (*tape.inputs, first, second)}
        assert len(memory) == 2  # the second result lies where the batch was


def test_an_input_or_a_constant_may_come_out_as_it_is() -> None:
    constant = torch.ones(1)
    tape = tape_of(lambda x: [x, constant + 0, x.view(1, 2)], [torch.zeros(2)])
    x = torch.tensor([1.0, 2.0])
    assert [each.tolist() for each in played_on(tape, x)] == [[1.0, 2.0], [1.0], [[1.0, 2.0]]]


elsewhere = torch.zeros(2)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x: [x * torch.rand(2)], "draws random numbers"),
        (lambda x: [x * x.sum().item()], "tells Python of a value"),
        (lambda x: [x.add_(1)], "changes what is not its own"),
        (lambda x: [elsewhere.add_(x)], "changes what is not its own"),
        (lambda x: [(x + 1).unsqueeze_(0)], "changes a shape in place"),
    ],
    ids=["random", "item", "input", "elsewhere", "shape"],
)
def test_what_cannot_be_made_again_is_refused(step: Step, reason: str) -> None:
    tape, why_not = recorded(step, [torch.ones(2)])
    assert tape is None
    assert reason in why_not


def test_an_output_that_was_not_seen_is_refused() -> None:
    unseen = torch.ones(2)
    assert recorded(lambda x: [x + 1, unseen], [torch.ones(2)])[0] is None


def test_recording_changes_no_result() -> None:
    x = torch.randn(4, requires_grad=True)
    expected = torch.autograd.grad(x.tanh().square().sum(), x)[0]
    with Recorder([x], []):
        found = torch.autograd.grad(x.tanh().square().sum(), x)[0]
    assert torch.equal(found, expected)
