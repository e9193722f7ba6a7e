from __future__ import annotations

import sys

import pytest
import torch

from fedlightning.data.datasets import load_digits


def test_all_images_are_in_one_of_the_two_parts() -> None:
    train, val = load_digits()
    assert (len(train), len(val)) == (1500, 297)
    images = torch.cat([train.tensors[0], val.tensors[0]])
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1
    # scikit-learn's own sum over all pixels, in sixteenths.
    assert int((images * 16).sum()) == 561718


def test_labels_have_the_same_share_in_both() -> None:
    train, val = load_digits()
    shares = [torch.bincount(part.tensors[1]) / len(part) for part in (train, val)]
    assert (shares[0] - shares[1]).abs().max() < 0.005


def test_split_follows_the_seed() -> None:
    one, again, other = load_digits(seed=1), load_digits(seed=1), load_digits(seed=2)
    assert torch.equal(one.val.tensors[0], again.val.tensors[0])
    assert not torch.equal(one.val.tensors[0], other.val.tensors[0])


@pytest.mark.parametrize(
    ("number", "message"), [(0, "must be at least 1"), (1797, "leaves none of 1797 images to train on")]
)
def test_refuses_an_empty_part(number: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"val_samples={number} {message}"):
        load_digits(val_samples=number)


def test_says_how_to_get_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fedlightning\[examples\]'"):
        load_digits()
