"""A tape gives what the step gives that it was recorded from, on other numbers, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from fedlightning.local.tapes.arena import Arena
from fedlightning.local.tapes.recorder import Recorder
from fedlightning.local.tapes.tape import Tape

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


def test_what_a_place_held_before_it_was_changed_does_not_come_out() -> None:
    place = torch.zeros(2)
    assert recorded(lambda x: [place.view(2), place.add_(x) * 2], [torch.ones(2)], [place])[0] is None


def test_operators_that_write_and_have_results_do_both() -> None:
    def step(x: Tensor) -> list[Tensor]:
        mean, var = x.mean(0), x.var(0)
        normed = torch.ops.aten._native_batch_norm_legit(x, None, None, mean, var, True, 0.1, 1e-5)
        return [mean, var, *(2 * each for each in normed)]

    tape, other = tape_of(step, [torch.randn(4, 3)]), torch.randn(4, 3)
    for played, expected in zip(played_on(tape, other), step(other), strict=True):
        assert torch.equal(played, expected)


def test_operators_are_made_again_on_tensors_as_they_were() -> None:
    def step(x: Tensor) -> list[Tensor]:
        moved = x + 1
        doubled = moved * 2
        moved.data = x * 5
        return [doubled, moved]

    tape = tape_of(step, [torch.ones(2)])
    assert [each.tolist() for each in played_on(tape, torch.tensor([1.0, 2.0]))] == [[4.0, 6.0], [5.0, 10.0]]


READERS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda a, b: a + b,
    lambda a, b: torch.where(a > b, a, 2 * b),
    lambda a, _: a.relu(),
    lambda a, _: a.clone(),
    lambda a, _: a.sort(0).values,
    lambda a, _: a.cumsum(0),
    lambda a, _: a.max(1, keepdim=True).values,
    lambda a, _: a.flip(0),
    lambda a, b: torch._foreach_mul([a, b], 2.0)[1],
    lambda a, _: torch.zeros_like(a),
    lambda a, _: torch.ones(a.shape),
    lambda a, _: a.double().sin().float(),
    lambda a, b: torch.add(a, b, out=torch.empty(a.shape)),
    # Views of all kinds, some of which overlap.
    lambda a, _: a.t(),
    lambda a, _: a[1:],
    lambda a, _: a[:, ::2],
    lambda a, _: a[:1].expand_as(a),
    lambda a, _: a.unfold(0, 2, 1)[:, :, 0],
    lambda a, _: a.view(-1, 1),
    lambda a, _: a.detach(),
]
WRITERS: list[Callable[[Tensor, Tensor], object]] = [
    lambda a, b: a.add_(b),
    lambda a, _: a.mul_(-1),
    lambda a, _: a.zero_(),
    lambda a, b: a.copy_(b),
    lambda a, b: a[:1].sub_(b[:1]),
    lambda a, b: torch._foreach_add_([a, a], [b, b]),
    lambda a, b: a.scatter_(0, torch.zeros(1, 1, dtype=torch.long), b),
]
numbers = st.integers(0, 99)
moves = st.tuples(st.sampled_from([*READERS, *WRITERS]), numbers, numbers)


@given(st.lists(moves, max_size=25), st.lists(numbers, min_size=1, max_size=3))
def test_any_graph_of_operators_is_made_again(program: list[Any], chosen: list[int]) -> None:
    place, fixed = torch.randn(4, 3), torch.randn(4, 3)

    def step(x: Tensor) -> list[Tensor]:
        own = [x * 1.5, place.view(2, 6), torch.zeros(4, 3)]
        for operator, first, second in program:
            others = [*own, x, fixed]
            # Those whose sizes do not fit, or that write where memory overlaps, raise each time.
            with suppress(RuntimeError, IndexError):
                if operator in WRITERS:
                    operator(own[first % len(own)], others[second % len(others)])
                else:
                    found = operator(others[first % len(others)], others[second % len(others)])
                    if not _shares(found, x) and not _shares(found, fixed):
                        own.append(found)
        outputs = [own[number % len(own)] for number in chosen]
        return [each * 1 if _shares(each, place) else each for each in outputs]

    tape = tape_of(step, [torch.randn(4, 3)], [place])
    for _ in range(2):
        x, before = torch.randn(4, 3), place.clone()
        played, left = [each.clone() for each in played_on(tape, x)], place.clone()
        place.copy_(before)
        torch.testing.assert_close([*played, left], [*step(x), place], rtol=0, atol=0, equal_nan=True)


def _shares(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


elsewhere = torch.zeros(2)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x: [x * torch.rand(2)], "draws random numbers"),
        (lambda x: [x * x.sum().item()], "tells Python of a value"),
        (lambda x: [x.add_(1)], "changes what is not its own"),
        (lambda x: [elsewhere.add_(x)], "changes what is not its own"),
        (lambda x: [(x + 1).unsqueeze_(0)], "changes a shape in place"),
        (lambda x: [x * sum(x.tolist())], "tells Python of values"),
        (lambda x: [x + torch.from_numpy(2 * x.numpy())], "tells Python of values"),
        (lambda x: [x.nonzero()], "depend on numbers"),
        (lambda x: [x[x > 0]], "depend on numbers"),
        (lambda x: [x.to_sparse().to_dense()], "not plain numbers"),
        (lambda x: [torch.complex(x, x).conj()], "not plain numbers"),
        (
            lambda x: [F.batch_norm(x.view(2, 1), elsewhere[:1], elsewhere[1:], training=True)],
            "running statistics",
        ),
        (lambda x: [torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))], "none of torch's own"),
    ],
    ids=[
        *("random", "item", "input", "elsewhere", "shape", "list", "numpy", "nonzero", "mask", "sparse"),
        *("conjugate", "batch norm", "higher order"),
    ],
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


def test_results_in_memory_of_the_operators_choice_are_given_back_after_their_last_use() -> None:
    weight = torch.randn(32, 3, 3, 3)

    def step(x: Tensor) -> list[Tensor]:
        between = torch.conv2d(x, weight)
        return [torch.conv2d(between.relu(), torch.ones(4, 32, 1, 1))]

    tape = tape_of(step, [torch.randn(8, 3, 16, 16)])
    looks = [call.args[0] for call in tape._calls if call.func is torch.ops.aten.clamp_min.out]
    for _ in range(2):
        other = torch.randn(8, 3, 16, 16)
        (played,) = played_on(tape, other)
        assert torch.equal(played, *step(other))
        assert [look.untyped_storage().nbytes() for look in looks] == [0]
