"""Workers' samples as the user lists them, so that another library's partition can be brought along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from typing_extensions import override

from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partitioner

SampleNumbers: TypeAlias = Sequence[int] | Indices


@dataclass(frozen=True)
class Explicit(Partitioner):
    """Give each worker the samples listed for it.

    Args:
        indices: The numbers of each worker's samples, in any order: a list of lists, or a mapping from the
            worker's name. Every sample must be in one of them.

    Raises:
        ValueError: If there is no list, or, when a dataset is divided, if the lists are not a partition of
            it.

    Example:
        >>> partition = Explicit({"bob": [2, 0], "alice": [1]}).split(["a", "b", "c"])
        >>> partition.worker_names, [part.tolist() for part in partition.indices]
        (('bob', 'alice'), [[0, 2], [1]])
    """

    indices: Sequence[SampleNumbers] | Mapping[str, SampleNumbers] = field(repr=False, compare=False)

    written_down = True

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.indices) == 0:
            raise ValueError("indices is empty: list the samples of at least one worker.")

    @override
    def worker_names(self, dataset: MapStyle) -> tuple[str, ...] | None:
        return tuple(self.indices) if isinstance(self.indices, Mapping) else None

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> list[Indices]:
        lists = list(self.indices.values()) if isinstance(self.indices, Mapping) else list(self.indices)
        if len(lists) != num_workers:
            raise ValueError(
                f"num_workers={num_workers}, but indices lists the samples of {len(lists)} workers; give "
                "one list per worker."
            )
        return [_as_numbers(samples) for samples in lists]


def _as_numbers(samples: SampleNumbers) -> Indices:
    numbers = np.asarray(samples)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ValueError(
            f"indices must list sample numbers (1-D, integers), got shape {numbers.shape}, dtype "
            f"{numbers.dtype}."
        )
    return numbers.astype(np.int64)
