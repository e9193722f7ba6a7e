"""A loader that one worker holds as it is: nothing is divided, so that anything iterable may train.

How a loader's dataset is divided over several workers is said by ``shard`` and ``loader_settings``.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from fedlightning.data.labels import known_labels
from fedlightning.workers.payload import payload_bytes

UNKNOWN = sys.maxsize
"""Batches of a loader that does not know its length: as many as will come."""


class WholeLoader:
    """Hold a user's own loader: a DataLoader with any sampler or dataset, or any other iterable of batches.

    Args:
        loader: The loader; not copied, and iterated as it is.

    Example:
        >>> whole = WholeLoader([[1, 2], [3]])
        >>> whole.num_batches, whole.num_samples, list(whole.in_order())
        (2, 2, [[1, 2], [3]])
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.dataset: Any = getattr(loader, "dataset", None)

    @property
    def num_batches(self) -> int:
        """Batches of an epoch; `UNKNOWN` where the loader has no length."""
        length = _length(self.loader)
        return UNKNOWN if length is None else length

    @property
    def num_samples(self) -> int:
        """Samples of its dataset; where that has no length, its batches, or 1 for no one knows."""
        samples = _length(self.dataset)
        return samples if samples is not None else _length(self.loader) or 1

    def ordinary_loader(self) -> Iterable[Any]:
        """Return the loader itself."""
        return self.loader

    def in_order(self) -> Iterator[Any]:
        """Yield every sample once, in order where the dataset numbers them; for evaluation."""
        loader = self.loader
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return iter(loader)
        return iter(DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn))

    def label_counts(self) -> Counter[Any] | None:
        """Count the samples of each class; None if the dataset does not show its labels."""
        labels = None if _length(self.dataset) is None else known_labels(self.dataset)
        return None if labels is None else Counter(sorted(labels.tolist()))

    def __repr__(self) -> str:
        return f"WholeLoader({type(self.loader).__name__})"


def _length(of: object) -> int | None:
    """Return a length, if there is one: some loaders have the method, and raise in it."""
    if not isinstance(of, Sized):
        return None
    try:
        return len(of)
    except (TypeError, NotImplementedError):
        return None


@payload_bytes.register
def _(value: WholeLoader) -> int:
    return payload_bytes(value.dataset)
