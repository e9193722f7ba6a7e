"""Skew of inputs: the same objects look different at each worker. How inputs change is in `input_change`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
from typing_extensions import override

from fedlightning.data.checks import check_real
from fedlightning.data.input_change import InputChange, InTurn, Noise, Rotation, Where
from fedlightning.data.map_style import MapStyle
from fedlightning.data.partition.base import Indices, Partition, Partitioner
from fedlightning.data.partition.iid import IID
from fedlightning.workers.random import derive_seed


@dataclass(frozen=True)
class FeatureSkew(Partitioner):
    """Divide a dataset as another partitioner does, and change the inputs at each worker in a way of its own.

    Args:
        among: How samples are divided.
        inputs: Where in a sample the inputs are: their position, or their key.
        seed: Seed of this partition alone; None takes the strategy's.
    """

    among: Partitioner = field(default_factory=IID, kw_only=True)
    inputs: Where = field(default=0, kw_only=True)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.among, Partitioner):
            raise TypeError(f"among must be a partitioner such as IID(), got {self.among!r}.")

    @abstractmethod
    def change(self, worker: int, num_workers: int, seed: int) -> InputChange:
        """Return what a worker's inputs go through.

        Args:
            worker: Number of the worker, from 0.
            num_workers: How many there are.
            seed: Seed of the partition.
        """

    @override
    def split(self, dataset: MapStyle, num_workers: int | None = None, seed: int = 0) -> Partition:
        seed = seed if self.seed is None else self.seed
        partition = self.among.split(dataset, num_workers, seed)
        own = [self.change(worker, len(partition), seed) for worker in range(len(partition))]
        earlier = partition.changes
        changes = own if earlier is None else map(InTurn, zip(earlier, own, strict=True))
        return replace(partition, changes=tuple(changes), inputs=self.inputs)

    @override
    def worker_names(self, dataset: MapStyle) -> tuple[str, ...] | None:
        return self.among.worker_names(dataset)

    @override
    def partition(self, dataset: MapStyle, num_workers: int, rng: np.random.Generator) -> Sequence[Indices]:
        return self.among.partition(dataset, num_workers, rng)


@dataclass(frozen=True)
class FeatureNoise(FeatureSkew):
    """Add Gaussian noise to the inputs, more at each worker: of variance ``sigma * i / N`` at the i-th of N.

    Source: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study" (NIID-Bench),
    section IV-B, "noise-based feature imbalance", with sigma = 0.1. Workers are counted from 1 in the order
    of their names. The noise belongs to the sample: it is the same in each epoch, and but for its size the
    same at whichever worker the sample lies. Validation data has none.

    Args:
        sigma: Variance of the noise at the last worker, non-negative; 0 for none.
        among: How samples are divided; at random, unless given.
        inputs: Where in a sample the inputs are: their position, or their key.
        seed: Seed of this partition alone; None takes the strategy's.

    Raises:
        TypeError: If ``among`` is no partitioner.
        ValueError: If sigma is negative or not finite.

    Example:
        >>> partition = FeatureNoise(0.1).split(range(8), num_workers=4)
        >>> partition.sizes, [round(change.variance, 3) for change in partition.changes]
        ((2, 2, 2, 2), [0.025, 0.05, 0.075, 0.1])
    """

    sigma: float = 0.1

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("sigma", self.sigma, zero_allowed=True, remedy="Use 0.1, as in the paper, or 0 for none.")

    @override
    def change(self, worker: int, num_workers: int, seed: int) -> InputChange:
        return Noise(self.sigma * (worker + 1) / num_workers, derive_seed(seed, "noise"))


@dataclass(frozen=True)
class FeatureRotation(FeatureSkew):
    """Turn the images of each worker by an angle of its own.

    By default by quarter turns, as in "rotated MNIST" of Ghosh et al. 2020 ("An Efficient Framework for
    Clustered Federated Learning"): every fourth worker sees the world in the same way. Validation data is not
    turned.

    Args:
        angles: In degrees, counter-clockwise: the first for the first worker in the order of names, and from
            the beginning again after the last.
        among: How samples are divided; at random, unless given.
        inputs: Where in a sample the images are: their position, or their key. Their last two dimensions are
            height and width.
        seed: Seed of this partition alone; None takes the strategy's.

    Raises:
        TypeError: If ``among`` is no partitioner.
        ValueError: If there is no angle, or one is not a finite number.

    Example:
        >>> partition = FeatureRotation([0, 45]).split(range(6), num_workers=3)
        >>> [change.degrees for change in partition.changes]
        [0, 45, 0]
    """

    angles: Sequence[float] = (0, 90, 180, 270)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.angles) == 0:
            raise ValueError("angles is empty: give at least one angle in degrees, such as 0.")
        for angle in self.angles:
            if not isfinite(angle):
                raise ValueError(f"angles has {angle}, which is no finite number. Give angles in degrees.")
        object.__setattr__(self, "angles", tuple(self.angles))

    @override
    def change(self, worker: int, num_workers: int, seed: int) -> InputChange:
        return Rotation(self.angles[worker % len(self.angles)])
