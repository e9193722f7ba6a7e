"""Arguments that do not fit each other reach no memory but the operands' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedlightning.pointers import PointerTensor
from fedlightning.pointers.messages import Ref
from fedlightning.workers import RemoteError, VirtualWorker, Worker, WorkerError
from fedlightning.workers.blank_memory import WORKER_OPERATIONS
from tests.workers.attacks.expecting import ask

ATEN = "torch.ops.aten."


def calls(ref: Callable[..., Ref]) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return calls that would read or write past the memory of what they are given."""
    one, three, batch = ref(torch.ones(1)), ref(torch.ones(3)), ref(torch.randn(2, 3))
    image, grad = ref(torch.ones(1, 1, 2, 2)), ref(torch.ones(1, 1, 1, 1))
    sgd = {"weight_decay": 0.0, "momentum": 0.0, "lr": 1.0, "dampening": 0.0, "nesterov": False}
    return {
        f"{ATEN}_reshape_alias": ((three, (1000,), (1,)), {}),
        "torch._fused_sgd_": (([three], [one], []), sgd | {"maximize": False, "is_first_step": True}),
        "torch.native_batch_norm": ((batch, one, None, None, None, True, 0.1, 1e-5), {}),
        "torch._native_batch_norm_legit": ((batch, one, None, three, three, True, 0.1, 1e-5), {}),
        "torch.batch_norm_update_stats": ((batch, one, one, 1.0), {}),
        f"{ATEN}native_batch_norm_backward": (
            (batch, batch, one, None, None, three, three, True, 1e-5, (True, True, True)),
            {},
        ),
        f"{ATEN}native_layer_norm_backward": (
            (batch, batch, (3,), one, one, three, three, (True, True, True)),
            {},
        ),
        "torch._weight_norm": ((ref(torch.ones(3, 3)), one, 0), {}),
        f"{ATEN}_cdist_backward": (
            (ref(torch.ones(1, 1)), batch, batch, 2.0, ref(torch.ones(2, 2))),
            {},
        ),
        f"{ATEN}unfold_backward": ((ref(torch.ones(1, 2)), (30,), 0, 2, 1), {}),
        f"{ATEN}max_pool2d_with_indices_backward": (
            (
                grad,
                image,
                (2, 2),
                (2, 2),
                (0, 0),
                (1, 1),
                False,
                ref(torch.ones(1, 1, 3, 3, dtype=torch.long)),
            ),
            {},
        ),
        "torch.segment_reduce": (
            (three, "sum"),
            {"lengths": ref(torch.tensor([100])), "unsafe": True},
        ),
    }


NAMES = [
    *("_reshape_alias", "native_batch_norm_backward", "native_layer_norm_backward", "_cdist_backward"),
    *("unfold_backward", "max_pool2d_with_indices_backward"),
]
NAMES = [ATEN + name for name in NAMES] + [
    f"torch.{name}"
    for name in (
        *("_fused_sgd_", "native_batch_norm", "_native_batch_norm_legit", "batch_norm_update_stats"),
        *("_weight_norm", "segment_reduce"),
    )
]


@pytest.mark.parametrize("name", NAMES)
def test_is_refused(guard: Worker, name: str) -> None:
    held = []

    def ref(tensor: torch.Tensor) -> Ref:
        held.append(guard.send(tensor))
        return Ref(held[-1].id_at_location)

    args, kwargs = calls(ref)[name]
    with pytest.raises(RemoteError):
        ask(guard, name, *args, **kwargs)


def test_positions_out_of_range_are_the_last_there_is() -> None:
    """Clamped, not checked: a check would read them, and they may be private."""
    bob = VirtualWorker(id="bob")
    scores, image = torch.randn(5, 1, 3).log_softmax(2), torch.ones(1, 1, 2, 2)
    lengths = torch.tensor([5]), torch.tensor([2])

    def loss(targets: list[int]) -> torch.Tensor:
        sent = [bob.send(value) for value in (scores, torch.tensor([targets]), *lengths)]
        return torch.nn.functional.ctc_loss(*sent).get()

    assert loss([1, 100_000]) == loss([1, 2])
    data, offsets = bob.send(torch.ones(6)), bob.send(torch.tensor([0, 2, 100_000]))
    assert torch.segment_reduce(data, "sum", offsets=offsets).get().tolist() == [2, 4]
    sent = [bob.send(value) for value in (torch.ones(1, 1, 1, 1), image, torch.full((1, 1, 1, 1), 10**9))]
    grad, there, positions = (Ref(pointer.id_at_location) for pointer in sent)
    window = ((2, 2), (2, 2), (0, 0), (1, 1), False)
    made = ask(bob, f"{ATEN}max_pool2d_with_indices_backward", grad, there, *window, positions)
    assert PointerTensor.point(bob, made).get().flatten().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["torch.fbgemm_pack_quantized_matrix", "torch.quantized_max_pool1d"])
def test_what_cannot_be_checked_is_not_offered(guard: Worker, name: str) -> None:
    assert name not in WORKER_OPERATIONS
    with pytest.raises(WorkerError, match="no operation on the allow-list"):
        ask(guard, name)
