"""What a data set that comes with its workers looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.utils.data import TensorDataset

from fedlightning.data.partition.natural import Natural


@dataclass(frozen=True, eq=False)
class GroupedData:
    """Hold samples of which each belongs to a worker by nature.

    Args:
        dataset: All samples.
        groups: The worker of each sample, shape ``(N,)``.

    Example:
        >>> import torch
        >>> visits = GroupedData(TensorDataset(torch.rand(3, 2)), np.array(["charite", "mayo", "charite"]))
        >>> partition = visits.partition.split(visits.dataset, num_workers=2)
        >>> dict(zip(partition.worker_names, partition.sizes))
        {'charite': 2, 'mayo': 1}
    """

    dataset: TensorDataset
    groups: npt.NDArray[np.str_]

    @property
    def partition(self) -> Natural:
        """The partition that gives each worker its own samples."""
        return Natural(self.groups)
