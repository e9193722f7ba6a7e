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
    """Return calls that would read or write past the memory of what they are given, or never come back."""
    one, three, batch = ref(torch.ones(1)), ref(torch.ones(3)), ref(torch.randn(2, 3))
    image, grad = ref(torch.ones(1, 1, 2, 2)), ref(torch.ones(1, 1, 1, 1))
    sgd = {"weight_decay": 0.0, "momentum": 0.0, "lr": 1.0, "dampening": 0.0, "nesterov": False}
    return {
        "torch.linalg.matrix_power": ((ref(torch.eye(2)), -(2**63)), {}),
        "torch.matrix_power": ((ref(torch.eye(2)),), {"n": -(2**63)}),
        "torch.Tensor.matrix_power": ((ref(torch.eye(2)), -(2**63)), {}),
        f"{ATEN}_reshape_alias": ((three, (1000,), (1,)), {}),
        "torch._fused_sgd_": (([three], [one], []), sgd | {"maximize": False, "is_first_step": True}),
        "torch.native_batch_norm": ((batch, one, None, None, None, True, 0.1, 1e-5), {}),
        "torch._native_batch_norm_legit": ((batch, one, None, three, three, True, 0.1, 1e-5), {}),
        "torch.native_batch_norm unknown": ((batch, None, None, None, None, False, 0.1, 1e-5), {}),
        "torch._native_batch_norm_legit unknown": ((batch, None, None, False, 0.1, 1e-5), {}),
        "torch._weight_norm empty": ((ref(torch.ones(0)), ref(torch.ones(0)), 0), {}),
        "torch.lstm": ((batch, (batch, batch), [], True, 1, 0.0, False, True, False), {}),
        f"{ATEN}_to_copy": ((three,), {"dtype": -1}),
        f"{ATEN}new_zeros": ((three, (2,), -1), {}),
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
        "torch.grid_sampler_2d": ((image, ref(torch.zeros(1, 1, 1, 2)), -1, 0, False), {}),
        "torch.lu_unpack": ((ref(torch.eye(3)), ref(torch.ones(0, dtype=torch.int32))), {}),
        "torch._chunk_cat": (([ref(torch.tensor(1.0))], -1, 2), {}),
        f"{ATEN}_log_softmax_backward_data": ((ref(torch.ones(9, 3)), batch, 1, torch.float32), {}),
        f"{ATEN}avg_pool2d_backward": (
            (ref(torch.ones(9, 1, 1, 1)), image, (2, 2), (2, 2), (0, 0), False, True, None),
            {},
        ),
        f"{ATEN}binary_cross_entropy_backward": ((one, one, ref(torch.ones(0)), None), {}),
        f"{ATEN}nll_loss2d_backward": (
            (grad, ref(torch.ones(1, 0, 1, 1)), ref(torch.ones(1, 1, 1).long()), None, 0, -100, one),
            {},
        ),
        f"{ATEN}_embedding_bag_backward": (
            (
                ref(torch.ones(0, 3)),
                *(ref(torch.zeros(1).long()) for _ in range(5)),
                4,
                False,
                0,
                False,
                None,
            ),
            {},
        ),
        f"{ATEN}embedding_dense_backward": ((batch, ref(torch.zeros(2).long()), 0, -1, True), {}),
    }


NAMES = list(calls(lambda tensor: Ref(0)))


@pytest.mark.parametrize("name", NAMES)
def test_is_refused(guard: Worker, name: str) -> None:
    held = []

    def ref(tensor: torch.Tensor) -> Ref:
        held.append(guard.send(tensor))
        return Ref(held[-1].id_at_location)

    args, kwargs = calls(ref)[name]
    with pytest.raises(RemoteError):
        ask(guard, name.partition(" ")[0], *args, **kwargs)


def test_positions_out_of_range_are_the_last_there_is() -> None:
    """Clamped, not checked: a check would read them, and they may be private."""
    bob = VirtualWorker(id="bob")
    scores, image = torch.randn(5, 1, 3).log_softmax(2), torch.ones(1, 1, 2, 2)
    lengths = torch.tensor([5]), torch.tensor([2])

    def loss(targets: list[int]) -> torch.Tensor:
        sent = [bob.send(value) for value in (scores, torch.tensor([targets]), *lengths)]
        return torch.nn.functional.ctc_loss(*sent).get()

    assert loss([1, 100_000]) == loss([1, 2])
    sent = [bob.send(value) for value in (torch.ones(1, 1, 1, 1), image, torch.full((1, 1, 1, 1), 10**9))]
    grad, there, positions = (Ref(pointer.id_at_location) for pointer in sent)
    window = ((2, 2), (2, 2), (0, 0), (1, 1), False)
    made = ask(bob, f"{ATEN}max_pool2d_with_indices_backward", grad, there, *window, positions)
    assert PointerTensor.point(bob, made).get().flatten().tolist() == [0, 0, 0, 1]


def test_segments_end_where_the_data_ends(bob: Worker) -> None:
    data = bob.send(torch.ones(6))
    offsets, lengths = bob.send(torch.tensor([0, 2, 100_000])), bob.send(torch.tensor([2, 100_000, 5]))
    assert torch.segment_reduce(data, "sum", offsets=offsets).get().tolist() == [2, 4]
    cut = torch.segment_reduce(data, "sum", lengths=lengths, unsafe=True)
    assert cut.get().tolist() == [2, 4, 0]
    # What belongs to no segment is left out, as torch does.
    few = torch.segment_reduce(data, "sum", lengths=bob.send(torch.tensor([2, 1])), unsafe=True)
    assert few.get().tolist() == [2, 1]


@pytest.mark.parametrize("offsets", [[0, 3, 0, 3], [0, 7], [2, 3]])
def test_bags_hold_all_that_there_is(bob: Worker, offsets: list[int]) -> None:
    """What is in no bag has no gradient, and what was in memory would stand in its place."""
    weights = bob.send(torch.ones(5, requires_grad=True))
    table, indices = bob.send(torch.ones(10, 3)), bob.send(torch.arange(5))
    bags = torch.nn.functional.embedding_bag(
        indices, table, bob.send(torch.tensor(offsets)), per_sample_weights=weights, mode="sum"
    )
    assert bags.copy().get().sum() == 15
    bags.sum().backward()
    assert weights.grad.get().tolist() == [3] * 5


def test_pivots_come_in_pairs(bob: Worker) -> None:
    factors, pivots = torch.linalg.ldl_factor(
        torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 1.0]])
    )
    right = torch.eye(3)
    expected = torch.linalg.ldl_solve(factors, pivots, right)
    assert (pivots < 0).sum() == 2
    sent = [bob.send(value) for value in (factors, pivots, right)]
    assert torch.equal(torch.linalg.ldl_solve(*sent).get(), expected)
    for hostile in (-torch.ones(3, dtype=torch.int32), torch.full((3,), 2**31 - 1, dtype=torch.int32)):
        sent = [bob.send(value) for value in (factors, hostile, right)]
        assert torch.linalg.ldl_solve(*sent).shape == (3, 3)


def test_eigenvalues_of_what_is_not_finite_are_not_numbers(bob: Worker) -> None:
    matrices = torch.stack([torch.eye(2), torch.full((2, 2), torch.nan), torch.full((2, 2), torch.inf)])
    values = torch.linalg.eigvals(bob.send(matrices)).get()
    assert values[0].tolist() == [1, 1]
    assert values[1:].isnan().all()


@pytest.mark.parametrize("name", ["torch.fbgemm_pack_quantized_matrix", "torch.quantized_max_pool1d"])
def test_what_cannot_be_checked_is_not_offered(guard: Worker, name: str) -> None:
    assert name not in WORKER_OPERATIONS
    with pytest.raises(WorkerError, match="no operation on the allow-list"):
        ask(guard, name)
