"""The data sets with workers, as a training job takes them: nothing is lost, and workers are in both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fedlightning.data import Natural
from fedlightning.data.datasets import (
    GroupedData,
    TrainVal,
    load_fcube,
    load_speakers,
    load_synthetic,
    make_fcube,
    make_synthetic,
    shakespeare,
)


@pytest.mark.parametrize(
    ("load", "make"),
    [
        (
            lambda: load_synthetic(num_workers=4, max_samples=90),
            lambda: make_synthetic(num_workers=4, max_samples=90),
        ),
        (lambda: load_fcube(400), lambda: make_fcube(400)),
    ],
    ids=["synthetic", "fcube"],
)
def test_every_worker_has_a_fifth_held_out(
    load: Callable[[], TrainVal], make: Callable[[], GroupedData]
) -> None:
    train, val = load()
    whole = make()
    for position, tensor in enumerate(whole.dataset.tensors):
        both = torch.cat([train.tensors[position], val.tensors[position]])
        assert torch.equal(both.sort(0).values, tensor.sort(0).values)
    sizes = {name: int((whole.groups == name).sum()) for name in np.unique(whole.groups)}
    held = {name: int((vars(val)["groups"] == name).sum()) for name in sizes}
    assert all(abs(held[name] - size / 5) < 1 for name, size in sizes.items())
    parts = Natural("groups").split(train)
    assert dict(zip(parts.worker_names or (), parts.sizes, strict=True)) == {
        name: size - held[name] for name, size in sizes.items()
    }


def test_speakers_keep_their_own_division(monkeypatch: pytest.MonkeyPatch) -> None:
    play = "# Our Play\n\n**BOB**\nGood morrow, Alice.\n\n**ALICE**\nWell met, good Bob.\n"
    monkeypatch.setattr(shakespeare, "_plays", lambda: [play])
    train, val = load_speakers(length=5)
    parts = Natural("groups").split(train)
    assert parts.worker_names == ("Our Play/ALICE", "Our Play/BOB")
    assert set(vars(val)["groups"]) == set(parts.worker_names)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.0, "val_share=0.0 must be a positive finite number"),
        (1.0, "val_share=1.0 leaves nothing to train on"),
        (0.99, "val_share=0.99 leaves a worker nothing to train on"),
    ],
)
def test_a_share_that_leaves_nothing_is_refused(share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_fcube(8, val_share=share)
