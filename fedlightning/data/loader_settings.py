"""How a user's DataLoader reads a dataset, apart from the dataset: what every worker's loader inherits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from fedlightning.data.checks import check_count
from fedlightning.data.map_style import MapStyle, check_map_style
from fedlightning.workers.remote import record


@record
@dataclass(frozen=True)
class LoaderSettings:
    """Say how batches are made of a dataset; the fields are the arguments of `torch.utils.data.DataLoader`.

    Args:
        batch_size: Samples per batch, at least 1.
        shuffle: Whether each epoch has a random order.
        drop_last: Whether a last, smaller batch of an epoch is left out.
        collate_fn: Makes a batch of a list of samples; None for torch's default.
        num_workers: Loader processes; 0 loads in this one.
        pin_memory: Whether batches are copied to page-locked memory.
        timeout: Seconds to wait for a batch of a loader process; 0 waits for ever.
        worker_init_fn: Called in each loader process with its number.
        multiprocessing_context: How loader processes are started.
        generator: Source of the seeds of loader processes, where the loader is used as an ordinary one.
        sampler_generator: Source of the shuffling, where the loader is used as an ordinary one.
        prefetch_factor: Batches that each loader process loads ahead.
        persistent_workers: Whether loader processes live on after an epoch.
        in_order: Whether batches of several loader processes come in order.

    Raises:
        ValueError: If ``batch_size`` is below 1, or ``num_workers`` below 0.

    Example:
        >>> settings = LoaderSettings.from_loader(DataLoader([1, 2, 3], batch_size=2, shuffle=True))
        >>> settings.batch_size, settings.shuffle
        (2, True)
    """

    batch_size: int = 1
    shuffle: bool = False
    drop_last: bool = False
    collate_fn: Callable[[list[Any]], Any] | None = None
    num_workers: int = 0
    pin_memory: bool = False
    timeout: float = 0
    worker_init_fn: Callable[[int], None] | None = None
    multiprocessing_context: Any = None
    generator: torch.Generator | None = None
    sampler_generator: torch.Generator | None = None
    prefetch_factor: int | None = None
    persistent_workers: bool = False
    in_order: bool = True

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        check_count("num_workers", self.num_workers, minimum=0)

    @classmethod
    def from_loader(cls, loader: object) -> LoaderSettings:
        """Read the settings off an ordinary DataLoader.

        Args:
            loader: A DataLoader over a map-style dataset, with the samplers that torch makes itself.

        Returns:
            Its settings, without its dataset.

        Raises:
            TypeError: If it is no DataLoader, or one whose batches cannot be divided over workers: an
                iterable dataset, an iteration of its own, or a sampler of the user's.
            ValueError: If it makes no batches (``batch_size=None``), or draws with replacement.
        """
        if not isinstance(loader, DataLoader):
            raise TypeError(
                f"train_dataloader={type(loader).__name__} is no DataLoader. Give a "
                "torch.utils.data.DataLoader to be divided over workers, or a FederatedDataLoader for "
                "data that lies at workers already."
            )
        check_map_style(loader.dataset)
        _check_iteration(loader)
        _check_samplers(loader)
        shuffled = isinstance(loader.sampler, RandomSampler)
        return cls(
            batch_size=int(loader.batch_size or 1),
            shuffle=shuffled,
            drop_last=loader.drop_last,
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            sampler_generator=loader.sampler.generator if isinstance(loader.sampler, RandomSampler) else None,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
            in_order=loader.in_order,
        )

    def ordinary_loader(self, dataset: MapStyle) -> DataLoader[Any]:
        """Make the DataLoader that a user with these settings would have made.

        Iterating it draws the same random numbers, from the same streams, as iterating the user's own.

        Args:
            dataset: A map-style dataset.

        Returns:
            A new DataLoader.
        """
        sampler = RandomSampler(dataset, generator=self.sampler_generator) if self.shuffle else None
        return DataLoader(
            cast("Dataset[Any]", dataset),  # torch takes anything map-style
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=self.drop_last,
            generator=self.generator,
            **self.loading_options(),
        )

    def loading_options(self) -> dict[str, Any]:
        """Give the DataLoader arguments that have nothing to do with the order of samples."""
        return {
            "collate_fn": self.collate_fn,
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory,
            "timeout": self.timeout,
            "worker_init_fn": self.worker_init_fn,
            "multiprocessing_context": self.multiprocessing_context,
            "prefetch_factor": self.prefetch_factor,
            "persistent_workers": self.persistent_workers,
            "in_order": self.in_order,
        }


def _check_iteration(loader: DataLoader[Any]) -> None:
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise TypeError(
            f"train_dataloader={type(loader).__name__} iterates in its own way, which would be lost when "
            "its dataset is divided over workers. Give an ordinary DataLoader with the same dataset and "
            "collate_fn."
        )
    if loader.batch_size is None and loader.batch_sampler is None:
        raise ValueError(
            "batch_size=None yields samples one by one, without batches to divide over workers. Give a "
            "batch_size; batch_size=1 with collate_fn=lambda samples: samples[0] yields the same."
        )


def _check_samplers(loader: DataLoader[Any]) -> None:
    # Exact types: a subclass decides about single samples or batches of the whole, which no worker has.
    if type(loader.batch_sampler) is not BatchSampler or loader.batch_size is None:
        raise TypeError(_own_sampler("batch_sampler", loader.batch_sampler))
    if type(loader.sampler) is SequentialSampler:
        return
    if type(loader.sampler) is not RandomSampler:
        raise TypeError(_own_sampler("sampler", loader.sampler))
    if loader.sampler.replacement or loader.sampler.num_samples != len(loader.sampler.data_source):
        raise ValueError(
            "sampler=RandomSampler with replacement, or with a num_samples of its own, draws from the "
            "whole dataset, which no worker has. Use shuffle=True; the strategy's local_steps says how "
            "many batches a worker takes per round."
        )


def _own_sampler(argument: str, sampler: object) -> str:
    return (
        f"{argument}={type(sampler).__name__} chooses among all samples of the dataset, but each worker "
        "has only its own. Use shuffle=True or shuffle=False; who has which samples is for the strategy's "
        "partition= to say, such as Explicit(indices)."
    )
