from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from fedlightning.data.loader_settings import LoaderSettings

DATASET = TensorDataset(torch.arange(23.0).unsqueeze(1), torch.arange(23) % 3)


def collate(samples: list[Any]) -> Any:
    return len(samples)


def test_every_setting_is_kept() -> None:
    generator = torch.Generator()
    loader = DataLoader(
        DATASET,
        batch_size=5,
        shuffle=True,
        drop_last=True,
        collate_fn=collate,
        num_workers=1,
        timeout=7,
        worker_init_fn=print,
        multiprocessing_context="spawn",
        generator=generator,
        prefetch_factor=3,
        persistent_workers=True,
        in_order=False,
    )
    again = LoaderSettings.from_loader(loader).ordinary_loader(DATASET)
    names = set(LoaderSettings.__dataclass_fields__) - {"shuffle", "sampler_generator"}
    assert {name: getattr(again, name) for name in names} == {name: getattr(loader, name) for name in names}
    assert isinstance(again.sampler, RandomSampler)
    assert again.sampler.generator is generator


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("own_generator", [False, True])
def test_ordinary_loader_yields_the_same_and_leaves_the_same_random_state(
    shuffle: bool, own_generator: bool
) -> None:
    def run(rebuild: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
        torch.manual_seed(3)
        generator = torch.Generator().manual_seed(4) if own_generator else None
        loader = DataLoader(DATASET, batch_size=4, shuffle=shuffle, generator=generator)
        if rebuild:
            loader = LoaderSettings.from_loader(loader).ordinary_loader(DATASET)
        return [x for _ in range(2) for x, _ in loader], torch.get_rng_state()

    (batches, state), (own_batches, own_state) = run(rebuild=True), run(rebuild=False)
    assert all(torch.equal(a, b) for a, b in zip(batches, own_batches, strict=True))
    assert torch.equal(state, own_state)


def test_sampler_with_a_generator_of_its_own_keeps_it() -> None:
    sampler = RandomSampler(DATASET, generator=torch.Generator().manual_seed(5))
    settings = LoaderSettings.from_loader(DataLoader(DATASET, sampler=sampler))
    assert settings.sampler_generator is sampler.generator
    assert settings.generator is None


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class OwnIteration(DataLoader[Any]):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([1, 2], r"train_dataloader=list is no DataLoader.*FederatedDataLoader"),
        (DataLoader(Stream()), r"IterableDataset.*Give a map-style dataset"),
        (OwnIteration(DATASET), r"OwnIteration iterates in its own way.*ordinary DataLoader"),
        (
            DataLoader(DATASET, sampler=WeightedRandomSampler([1.0] * 23, 23)),
            r"sampler=WeightedRandomSampler.*shuffle=True.*Explicit",
        ),
        (
            DataLoader(DATASET, batch_sampler=[[0, 1], [2, 3]]),
            r"batch_sampler=list.*each worker has only its own",
        ),
        (
            DataLoader(DATASET, batch_sampler=BatchSampler(SequentialSampler(DATASET), 2, False)),
            r"batch_sampler=BatchSampler",
        ),
    ],
)
def test_refuses_what_cannot_be_divided(loader: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        LoaderSettings.from_loader(loader)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(DATASET, batch_size=None), r"batch_size=None.*Give a batch_size"),
        (DataLoader(DATASET, sampler=RandomSampler(DATASET, replacement=True)), r"with replacement"),
        (DataLoader(DATASET, sampler=RandomSampler(DATASET, num_samples=5)), r"num_samples of its own"),
    ],
)
def test_refuses_loaders_without_epochs_of_batches(loader: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoaderSettings.from_loader(loader)


def test_refuses_a_batch_size_of_zero() -> None:
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        LoaderSettings(batch_size=0)
