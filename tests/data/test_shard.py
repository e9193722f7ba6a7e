from __future__ import annotations

import pickle
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.shard import Shard
from fedlightning.workers.payload import payload_bytes

TENSORS = TensorDataset(torch.arange(22.0).reshape(11, 2), torch.arange(11) % 3)


class Records(Dataset[dict[str, Any]]):
    """A dataset that must be read sample by sample."""

    targets = (0, 1, 0, 1, 0, 1, 0)

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert type(index) is int
        return {"x": torch.tensor([float(index)]), "name": f"sample-{index}"}


class Augmented(Dataset[torch.Tensor]):
    """A dataset with random augmentation from all three generators that people use."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, float(torch.rand(())), random.random(), np.random.rand()])


def names(samples: list[dict[str, Any]]) -> list[str]:
    return [sample["name"] for sample in samples]


def read(shard: Shard, first: int, count: int, seed: int = 0, worker: str = "bob") -> list[Any]:
    return list(shard.batches(first, count, seed=seed, worker=worker))


def random_states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().tolist(), numpy_state["key"].tolist(), numpy_state["pos"], random.getstate()


@pytest.mark.parametrize(
    "dataset", [TENSORS, Subset(TENSORS, [5, 1, 9, 0]), Records()], ids=["all", "part", "other"]
)
@pytest.mark.parametrize("drop_last", [False, True])
def test_unshuffled_batches_are_those_of_the_ordinary_loader(dataset: Any, drop_last: bool) -> None:
    loader = DataLoader(dataset, batch_size=3, drop_last=drop_last)
    shard = Shard(dataset, LoaderSettings.from_loader(loader))
    assert shard.num_batches == len(loader)
    own = read(shard, 0, 2 * len(loader))
    assert repr(own) == repr([*loader, *loader])


@pytest.mark.parametrize("dataset", [TENSORS, Records()], ids=["in memory", "sample by sample"])
def test_shuffled_batches_hold_every_sample_once_an_epoch(dataset: Any) -> None:
    shard = Shard(dataset, LoaderSettings(batch_size=4, shuffle=True))
    epochs = [read(shard, epoch * shard.num_batches, shard.num_batches) for epoch in range(2)]
    in_order = list(shard.in_order())
    for epoch in epochs:
        assert [len(next(iter(b.values())) if isinstance(b, dict) else b[0]) for b in epoch] == [
            len(next(iter(b.values())) if isinstance(b, dict) else b[0]) for b in in_order
        ]
        assert sorted(_first_values(epoch)) == _first_values(in_order)
    assert _first_values(epochs[0]) != _first_values(epochs[1])


def _first_values(batches: list[Any]) -> list[float]:
    firsts = [batch["x"] if isinstance(batch, dict) else batch[0] for batch in batches]
    return [float(value) for batch in firsts for value in batch[:, 0]]


@pytest.mark.parametrize("dataset", [TENSORS, Records()], ids=["in memory", "sample by sample"])
def test_any_slice_can_be_read_again_and_alone(dataset: Any) -> None:
    settings = LoaderSettings(batch_size=2, shuffle=True)
    whole = read(Shard(dataset, settings), 0, 9)
    fresh = Shard(dataset, settings)
    assert repr(read(fresh, 6, 3)) == repr(whole[6:])
    assert repr(read(fresh, 2, 4)) == repr(whole[2:6])


@pytest.mark.parametrize("dataset", [TENSORS, Records()], ids=["in memory", "sample by sample"])
def test_global_random_states_are_untouched(dataset: Any) -> None:
    shard = Shard(dataset, LoaderSettings(batch_size=2, shuffle=True))
    before = random_states()
    read(shard, 0, 5)
    list(shard.in_order())
    assert random_states() == before


def test_interleaved_reads_do_not_disturb_each_other() -> None:
    shard = Shard(Records(), LoaderSettings(batch_size=2, shuffle=True, collate_fn=names))
    expected = [read(shard, 0, 3), read(shard, 5, 3)]
    pairs = zip(
        shard.batches(0, 3, seed=0, worker="bob"), shard.batches(5, 3, seed=0, worker="bob"), strict=True
    )
    assert [list(own) for own in zip(*pairs, strict=True)] == expected


def test_own_collation_is_kept() -> None:
    shard = Shard.of(Records(), [6, 2, 3], LoaderSettings(batch_size=2, collate_fn=names))
    assert read(shard, 0, 2) == [["sample-6", "sample-2"], ["sample-3"]]


@pytest.mark.parametrize("persistent", [False, True])
def test_augmentation_in_loader_processes_depends_on_the_batch_alone(persistent: bool) -> None:
    settings = LoaderSettings(batch_size=2, shuffle=True, num_workers=2, persistent_workers=persistent)
    shard = Shard(Augmented(), settings)
    before = random_states()
    whole = read(shard, 0, 6)
    again = [*read(shard, 1, 4), *read(shard, 5, 1)]
    assert all(torch.equal(one, other) for one, other in zip(whole[1:], again, strict=True))
    assert random_states() == before
    # Every batch has a seed of its own, for all three generators.
    draws = torch.cat(whole)[:, 1:]
    assert len(torch.unique(draws)) == draws.numel()
    assert not torch.equal(whole[0], read(shard, 0, 1, worker="alice")[0])


def test_without_loader_processes_augmentation_draws_from_this_process() -> None:
    shard = Shard(Augmented(), LoaderSettings(batch_size=6))
    torch.manual_seed(1)
    one = read(shard, 0, 1)[0][:, 1]
    torch.manual_seed(1)
    assert torch.equal(one, torch.rand(6))


def test_all_samples_in_order_are_the_dataset_itself() -> None:
    assert Shard.of(TENSORS, np.arange(11), LoaderSettings()).dataset is TENSORS
    part = Shard.of(TENSORS, np.arange(10), LoaderSettings()).dataset
    assert isinstance(part, Subset)
    assert part.dataset is TENSORS


def test_label_counts() -> None:
    assert Shard(TENSORS, LoaderSettings()).label_counts() == Counter({0: 4, 1: 4, 2: 3})
    assert Shard.of(Records(), [0, 2, 3], LoaderSettings()).label_counts() == Counter({0: 2, 1: 1})
    assert Shard([1.5, 2.5], LoaderSettings()).label_counts() is None
    assert Shard(TensorDataset(torch.rand(3), torch.rand(3)), LoaderSettings()).label_counts() is None


def test_nothing_but_data_and_settings_travels() -> None:
    shard = Shard(TENSORS, LoaderSettings(batch_size=4, shuffle=True))
    expected = read(shard, 0, 4)
    copy = pickle.loads(pickle.dumps(shard))
    assert set(vars(copy)) == {"num_samples", "dataset", "settings"}
    assert repr(read(copy, 0, 4)) == repr(expected)


def test_size_on_the_wire_is_that_of_its_own_samples() -> None:
    assert payload_bytes(Shard.of(TENSORS, [0, 1, 2], LoaderSettings())) == 3 * (2 * 4 + 8)


def test_a_shard_without_batches_is_refused_when_read() -> None:
    shard = Shard(TENSORS, LoaderSettings(batch_size=12, drop_last=True))
    assert shard.num_batches == 0
    assert len(list(shard.in_order())) == 1
    with pytest.raises(ValueError, match="drop_last=True leaves no batch of batch_size=12 in 11 samples"):
        read(shard, 0, 1)


def test_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="has no samples"):
        Shard([], LoaderSettings())


def test_batches_that_are_gathered_together_are_tensors_of_their_own() -> None:
    shard = Shard(TENSORS, LoaderSettings(batch_size=2))
    expected = [[tensor.clone() for tensor in batch] for batch in read(shard, 0, 3)]
    scale = torch.ones((), requires_grad=True)
    for batch, untouched in zip(shard.batches(0, 3, seed=0, worker="bob"), expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(batch, untouched, strict=True))
        batch[0].mul_(scale * 2)  # what user code may do to a batch of its own
        assert batch[0].grad_fn is not None


def test_how_many_batches_are_gathered_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LoaderSettings(batch_size=2, shuffle=True)
    expected = read(Shard(TENSORS, settings), 1, 7)
    monkeypatch.setattr("fedlightning.data.in_memory._BYTES_AT_ONCE", 1)
    assert repr(read(Shard(TENSORS, settings), 1, 7)) == repr(expected)
