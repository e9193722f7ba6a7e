from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset, TensorDataset

from fedlightning.data.in_memory import tensor_rows
from fedlightning.data.loader_settings import LoaderSettings

DEFAULT = LoaderSettings()


def tensors(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [
        torch.randn(count, 3, 2, generator=generator),
        torch.randint(9, (count,), generator=generator),
        torch.rand(count, generator=generator) > 0.5,
        torch.randn(count, 2, generator=generator, dtype=torch.complex64),
        torch.zeros(count, 0),
    ]


@given(st.integers(1, 12), st.data())
def test_a_gather_equals_what_the_ordinary_loader_yields(count: int, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8))
    nested = data.draw(st.lists(st.integers(0, len(kept) - 1), min_size=1, max_size=6))
    dataset = Subset(Subset(TensorDataset(*tensors(count)), kept), nested)
    rows = tensor_rows(dataset, DEFAULT)
    assert rows is not None
    batch = rows.take(torch.arange(len(nested)))
    expected = next(iter(DataLoader(dataset, batch_size=len(nested))))
    assert type(batch) is type(expected) is list
    for own, other in zip(batch, expected, strict=True):
        assert own.dtype == other.dtype
        assert own.stride() == other.stride()
        assert torch.equal(own, other)


def test_a_batch_is_a_copy() -> None:
    dataset = TensorDataset(torch.zeros(4))
    rows = tensor_rows(dataset, DEFAULT)
    assert rows is not None
    rows.take(torch.arange(4))[0].add_(1)
    assert dataset.tensors[0].sum() == 0


class Doubled(TensorDataset):
    def __getitem__(self, index: Any) -> Any:
        return tuple(2 * tensor[index] for tensor in self.tensors)


class HalfSubset(Subset[Any]):
    def __len__(self) -> int:
        return len(self.indices) // 2


@pytest.mark.parametrize(
    "dataset",
    [
        Doubled(torch.ones(4)),
        HalfSubset(TensorDataset(torch.ones(4)), [0, 1]),
        TensorDataset(torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)),
        TensorDataset(torch.randn(3, 4).T),
        TensorDataset(torch.nn.Parameter(torch.ones(4))),
        TensorDataset(torch.randn(4, dtype=torch.complex64).conj()),
        Subset(TensorDataset(torch.ones(4)), [-1, 0]),
        [1, 2, 3],
    ],
)
def test_anything_that_may_read_differently_is_left_to_the_loader(dataset: Any) -> None:
    assert tensor_rows(dataset, DEFAULT) is None


def test_own_collation_is_left_to_the_loader() -> None:
    assert tensor_rows(TensorDataset(torch.ones(4)), LoaderSettings(collate_fn=len)) is None
