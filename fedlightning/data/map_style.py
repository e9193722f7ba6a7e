"""What a dataset must offer so that it can be divided: a length, and a sample for each index."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol

from torch.utils.data import IterableDataset


class MapStyle(Protocol):
    """Be a dataset whose samples are numbered: any torch map-style dataset, or a list.

    Example:
        >>> def first_sample(dataset: MapStyle) -> Any:
        ...     return dataset[0]
        >>> first_sample(["a", "b"])
        'a'
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...


def check_map_style(dataset: object) -> int:
    """Count the samples of a dataset that can be divided over workers.

    Args:
        dataset: The dataset that a user gave.

    Returns:
        Its number of samples.

    Raises:
        TypeError: If the dataset is an `IterableDataset`, or has no length or no samples by index.
        ValueError: If it has no samples.
    """
    kind = type(dataset).__name__
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"dataset={kind} is an IterableDataset: its samples have no numbers, so they cannot be divided "
            "over workers. Give a map-style dataset, with __len__ and __getitem__; `list(dataset)` makes "
            "one of a stream that fits into memory."
        )
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"dataset={kind} is not map-style: it needs __len__ and __getitem__ so that its samples can be "
            "divided over workers."
        )
    if len(dataset) == 0:
        raise ValueError(
            f"dataset={kind} has no samples; give a dataset with at least one sample per worker."
        )
    return len(dataset)
