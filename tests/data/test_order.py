from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.data.order import BatchOrder

orders = st.builds(
    BatchOrder,
    num_samples=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
).filter(lambda order: order.num_batches > 0)


def take(order: BatchOrder, first: int, count: int, seed: int = 0, worker: str = "bob") -> list[list[int]]:
    return [batch.tolist() for batch in order.batches(first, count, seed=seed, worker=worker)]


@given(orders, st.integers(0, 30), st.integers(0, 10), st.integers(0, 10), st.integers())
def test_any_slice_equals_its_part_of_the_whole(
    order: BatchOrder, first: int, one: int, other: int, seed: int
) -> None:
    whole = take(order, first, one + other, seed)
    assert whole == take(order, first, one, seed) + take(order, first + one, other, seed)


@given(orders, st.integers(0, 5))
def test_an_epoch_holds_each_sample_once(order: BatchOrder, epoch: int) -> None:
    batches = take(order, epoch * order.num_batches, order.num_batches)
    samples = [sample for batch in batches for sample in batch]
    kept = order.num_batches * order.batch_size if order.drop_last else order.num_samples
    assert len(set(samples)) == len(samples) == kept
    if not order.shuffle:
        assert samples == list(range(kept))


def test_epochs_workers_and_seeds_have_orders_of_their_own() -> None:
    order = BatchOrder(20, 20, shuffle=True, drop_last=False)
    drawn = [
        take(order, 0, 1),
        take(order, 1, 1),
        take(order, 0, 1, seed=1),
        take(order, 0, 1, worker="alice"),
    ]
    assert all(one != other for position, one in enumerate(drawn) for other in drawn[:position])


def test_first_sample_of_a_shuffled_epoch_is_uniform() -> None:
    order = BatchOrder(4, 1, shuffle=True, drop_last=False)
    firsts = torch.tensor([take(order, 4 * epoch, 1)[0][0] for epoch in range(2000)])
    # Each 500 on average, standard deviation 19.4.
    assert (torch.bincount(firsts, minlength=4) - 500).abs().max() < 5 * 19.4


def test_refuses_a_stream_without_batches() -> None:
    order = BatchOrder(3, 4, shuffle=False, drop_last=True)
    assert order.num_batches == 0
    with pytest.raises(ValueError, match="drop_last=True leaves no batch of batch_size=4 in 3 samples"):
        take(order, 0, 1)


def test_refuses_negative_numbers() -> None:
    with pytest.raises(ValueError, match="first=-1 and count=2 must not be negative"):
        take(BatchOrder(3, 1, shuffle=False, drop_last=False), -1, 2)
