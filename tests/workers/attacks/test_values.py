"""A pointer tells no value: not as a number, not as text, not in a file, not by its memory."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlightning.pointers import HiddenValueError, PointerError, PointerTensor, UnsupportedOperationError
from fedlightning.pointers.messages import Ref
from fedlightning.workers import RefusedByPolicy, Worker
from tests.workers.attacks.expecting import VALUES, ask, stays


@pytest.mark.parametrize(
    "reveal",
    [
        lambda x: x[0].item(),
        lambda x: bool(x[0] > 3),
        lambda x: int(x[0]),
        lambda x: float(x[0]),
        lambda x: complex(x[0]),
        lambda x: [1, 2, 3, 4, 5][x[0].long()],
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: 3.0 in x,
        lambda x: max(x),
        lambda x: sorted(x),
        lambda x: "yes" if (x == 3).any() else "no",
        lambda x: f"{x[0]:.2f}",
    ],
)
def test_numbers_are_hidden(secret: Tensor, reveal: Callable[[Tensor], Any]) -> None:
    with pytest.raises(HiddenValueError, match=r"would reveal the value of a tensor.*call \.get\(\) first"):
        reveal(secret)


@pytest.mark.parametrize("compare", [torch.equal, torch.allclose])
def test_comparing_values_is_asked_of_the_policy(
    guard: Worker, secret: Tensor, compare: Callable[..., bool]
) -> None:
    with stays():
        compare(secret, guard.send(torch.tensor(VALUES)))


@pytest.mark.parametrize("operation", ["__repr__", "is_nonzero", "item", "tolist", "numpy"])
def test_a_message_gets_no_value_either(guard: Worker, secret: PointerTensor, operation: str) -> None:
    one = secret[0]
    with pytest.raises(RefusedByPolicy):
        ask(guard, f"torch.Tensor.{operation}", Ref(one.id_at_location))


@pytest.mark.parametrize(
    "show", [repr, str, format, lambda x: x._repr_html_() if hasattr(x, "_repr_html_") else ""]
)
def test_text_shows_no_value(guard: Worker, show: Callable[[Any], str]) -> None:
    pointer = guard.register(torch.tensor([123456.0]))
    samples = guard.register([123456.0])
    for private in (pointer, pointer * 1, samples):
        assert "123456" not in show(private)


def test_what_a_pointer_knows_without_asking_is_no_value(secret: Tensor) -> None:
    assert (len(secret), secret.shape, secret.dtype) == (6, (6,), torch.float32)


@pytest.mark.parametrize(
    "store", [pickle.dumps, lambda x: torch.save(x, io.BytesIO()), copy.deepcopy, copy.copy]
)
def test_copies_and_files_hold_no_value(secret: Tensor, store: Callable[[Any], Any]) -> None:
    try:
        copied = store(secret)
    except (PointerError, TypeError):
        return
    with stays():
        copied.get()


def test_a_modules_state_is_pointers(guard: Worker, secret: Tensor) -> None:
    module = nn.Linear(6, 1)
    module.send(guard)
    with torch.no_grad():
        module.weight.copy_(secret.unsqueeze(0))
    assert all(isinstance(value, PointerTensor) for value in module.state_dict().values())
    with pytest.raises(UnsupportedOperationError, match="pointer means nothing in a file"):
        torch.save(module.state_dict(), io.BytesIO())
    with stays():
        module.state_dict()["weight"].get()
    with stays():
        module.get()


@pytest.mark.parametrize(
    "reach",
    [
        lambda x: x.data_ptr(),
        lambda x: x.untyped_storage(),
        lambda x: x.storage(),
        lambda x: torch.from_dlpack(x),
        lambda x: x.__cuda_array_interface__,
        lambda x: torch.empty(0).set_(x),
        lambda x: x.share_memory_(),
    ],
)
def test_memory_is_out_of_reach(secret: Tensor, reach: Callable[[Tensor], Any]) -> None:
    with pytest.raises((PointerError, RuntimeError, BufferError)) as info:
        reach(secret)
    assert "3." not in str(info.value)


def test_hooks_would_carry_code(secret: Tensor) -> None:
    for hook in (secret.register_hook, secret.apply_, secret.register_post_accumulate_grad_hook):
        with pytest.raises(UnsupportedOperationError, match="carry code"):
            hook(print)


def test_functions_of_the_users_own_would_see_values(secret: Tensor) -> None:
    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            raise AssertionError("reached")

    with pytest.raises(UnsupportedOperationError, match=r"inside a program, with worker\.run"):
        Spy.apply(secret)
