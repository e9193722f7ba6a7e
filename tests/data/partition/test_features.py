"""Skew of inputs: who has which, on which division, by name, and up to the batches of a fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from fedlightning.data import (
    Dirichlet,
    Explicit,
    FeatureNoise,
    FeatureRotation,
    FeatureSkew,
    FederatedDataset,
    Natural,
)
from fedlightning.data.input_change import InTurn, Rotation
from fedlightning.data.partition.base import fingerprint_of
from fedlightning.workers import VirtualWorker

IMAGES = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 3
DATA = TensorDataset(IMAGES, LABELS)
WRITTEN = Explicit({"x": range(20), "w": range(20, 24)})


def test_noise_grows_from_worker_to_worker() -> None:
    zeros = TensorDataset(torch.zeros(4000, 100), torch.zeros(4000))
    partition = FeatureNoise(0.4).split(zeros, 4, seed=1)
    for number in range(4):
        variance = float(partition.part(zeros, number)[:][0].var())
        expected = 0.4 * (number + 1) / 4
        assert variance == pytest.approx(expected, abs=5 * expected * math.sqrt(2 / 100_000))


def test_turns_repeat() -> None:
    partition = FeatureRotation((0, 90)).split(DATA, 3)
    for number, quarters in enumerate((0, 1, 0)):
        expected = torch.rot90(IMAGES[partition.indices[number]], quarters, (-2, -1))
        assert torch.equal(partition.part(DATA, number)[:][0], expected)


@pytest.mark.parametrize("skew", [FeatureNoise, FeatureRotation])
@pytest.mark.parametrize("among", [Dirichlet(0.5), Natural(np.array(["b", "a"] * 12)), WRITTEN])
def test_samples_are_divided_as_by_the_other_partitioner(skew: type[FeatureSkew], among: Any) -> None:
    num_workers = 4 if isinstance(among, Dirichlet) else None
    plain, skewed = among.split(DATA, num_workers, 5), skew(among=among).split(DATA, num_workers, 5)
    assert [part.tolist() for part in skewed.indices] == [part.tolist() for part in plain.indices]
    assert (skewed.worker_names, skewed.in_order) == (plain.worker_names, plain.in_order)
    assert skewed.part(DATA, 0)[:][1].tolist() == LABELS[plain.indices[0]].tolist()


def test_changes_follow_the_names() -> None:
    drawn = FeatureRotation((0, 90, 180)).split(DATA, 3)
    assert drawn.changes_by_name(["c", "a", "b"]) == {"a": Rotation(0), "b": Rotation(90), "c": Rotation(180)}
    named = FeatureRotation((0, 90), among=WRITTEN).split(DATA)
    assert named.changes_by_name(["w", "x"]) == {"x": Rotation(0), "w": Rotation(90)}
    assert Dirichlet(0.5).split(DATA, 3).changes_by_name(["a", "b", "c"]) == {}


def test_one_skew_upon_another() -> None:
    both = FeatureNoise(0.0, among=FeatureRotation((90,))).split(DATA, 2)
    assert isinstance(both.changes[0], InTurn)
    assert torch.equal(both.part(DATA, 1)[:][0], torch.rot90(IMAGES[both.indices[1]], 1, (-2, -1)))


def test_noise_depends_on_the_seed_and_not_on_whom_the_sample_is_at() -> None:
    def noise_of(sample: int, worker: int, parts: list[list[int]], seed: int = 0) -> torch.Tensor:
        partition = FeatureNoise(0.1, among=Explicit(parts)).split(DATA, 2, seed)
        at = partition.indices[worker].tolist().index(sample)
        return partition.part(DATA, worker)[at][0] - IMAGES[sample]

    first, second = [list(range(12)), list(range(12, 24))], [list(range(12, 24)), list(range(12))]
    torch.testing.assert_close(math.sqrt(2) * noise_of(3, 0, first), noise_of(3, 1, second))
    assert not torch.allclose(noise_of(3, 0, first), noise_of(3, 0, first, seed=1))


def test_a_digest_tells_skews_apart() -> None:
    names = ["a", "b"]
    splits = [p.split(DATA, 2) for p in (FeatureNoise(0.1), FeatureNoise(0.2), FeatureRotation())]
    digests = {fingerprint_of(s.by_name(names), s.changes_by_name(names)) for s in splits}
    assert len(digests | {fingerprint_of(splits[0].by_name(names))}) == 4


def test_data_that_is_sent_is_changed() -> None:
    workers = [VirtualWorker(id="bob"), VirtualWorker(id="alice")]
    sent = FederatedDataset.from_dataset(DATA, workers, FeatureRotation((180, 90)))
    partition = FeatureRotation((180, 90)).split(DATA, 2)
    inputs, labels = (pointer.get() for pointer in sent["bob"])
    assert torch.equal(inputs, torch.rot90(IMAGES[partition.indices[1]], 1, (-2, -1))), "alice comes first"
    assert torch.equal(labels, LABELS[partition.indices[1]])


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: FeatureNoise(-0.1), ValueError, "sigma=-0.1 must be a non-negative finite number"),
        (lambda: FeatureNoise(among=Dirichlet), TypeError, "among must be a partitioner such as IID"),
        (lambda: FeatureRotation(()), ValueError, "angles is empty"),
        (
            lambda: FeatureRotation((0, math.inf)),
            ValueError,
            "angles has inf, which is no finite number",
        ),
    ],
)
def test_settings_that_make_no_sense(make: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        make()
