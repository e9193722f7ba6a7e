"""Which samples are in which batch, as a pure function of (seed, worker, number of the batch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from fedlightning.data.shuffling import SMALL, shuffled, shuffled_together
from fedlightning.workers.random import derive_seed, derive_seeds


@dataclass(frozen=True)
class BatchOrder:
    """Number the batches of an endless stream: batch b lies in local epoch ``b // num_batches``.

    Args:
        num_samples: Samples of an epoch.
        batch_size: Samples of a batch.
        shuffle: Whether each epoch has an order of its own.
        drop_last: Whether a last, smaller batch is left out.
    """

    num_samples: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    # The last order drawn: a visit of a few steps reads little of a long epoch, and the next goes on in it.
    _last: dict[tuple[int, str, int], torch.Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def num_batches(self) -> int:
        """Batches of an epoch; 0 if the only one is too small and left out."""
        return count_batches(self.num_samples, self.batch_size, self.drop_last)

    def batches(self, first: int, count: int, *, seed: int, worker: str) -> Iterator[torch.Tensor]:
        """Yield the sample positions of some batches.

        Args:
            first: Number of the first batch, counted from 0 over all epochs.
            count: How many.
            seed: Seed of the run.
            worker: Name of the worker, whose shuffling is its own.

        Yields:
            Positions in ``[0, num_samples)``, int64, shape ``(batch_size,)`` or less at the end of an epoch.

        Raises:
            ValueError: If there are no batches, or ``first`` or ``count`` is negative.
        """
        for run in self.runs(first, count, longest=count, seed=seed, worker=worker):
            yield from torch.split(run, self.batch_size)

    def runs(self, first: int, count: int, *, longest: int, seed: int, worker: str) -> Iterator[torch.Tensor]:
        """Yield the sample positions of several batches at a time, to be split by the batch size.

        Args:
            first: As for `batches`, like the rest.
            count: How many batches in all.
            longest: The most batches of one run, which also ends where an epoch does.
            seed: Seed of the run.
            worker: Name of the worker.

        Yields:
            Positions, int64, one-dimensional; all batches in it are whole but the last of an epoch.
        """
        self._check(first, count)
        end = first + count
        while first < end:
            epoch, number = divmod(first, self.num_batches)
            taken = min(longest, end - first, self.num_batches - number)
            samples = self.epoch(epoch, seed=seed, worker=worker)
            first += taken
            if number + taken == self.num_batches:
                self._last.clear()
            yield samples[number * self.batch_size : (number + taken) * self.batch_size]

    def positions(self, first: int, count: int, *, seed: int, worker: str) -> torch.Tensor:
        """Return the sample positions of some batches, one after the other; arguments as for `batches`."""
        if count == self.num_batches and first % count == 0 and not self.drop_last and first >= 0:
            return self._drawn(first // count, seed, worker)
        return torch.cat(list(self.runs(first, count, longest=count, seed=seed, worker=worker)))

    def positions_of_many(
        self, first: npt.NDArray[np.int64], count: int, *, seed: int, workers: Sequence[str]
    ) -> torch.Tensor:
        """Return what `positions` does, of several workers at once.

        Args:
            first: Number of each worker's first batch; all at the same place within their epochs.
            count: How many batches of each.
            seed: Seed of the run.
            workers: Their names.

        Returns:
            Positions, int64, shape ``(workers, samples)``.
        """
        if self.num_samples > SMALL:  # not whole epochs of everybody, of which a visit may read little
            each = zip(first.tolist(), workers, strict=True)
            return torch.stack([self.positions(start, count, seed=seed, worker=name) for start, name in each])
        every, size = self.num_batches, self.batch_size
        begin = int(first[0]) % every
        end = begin + count
        epochs = (first // every)[:, None] + np.arange(-(-end // every))
        whole = every * size if self.drop_last else self.num_samples
        orders = self._drawn_together(epochs, seed, workers)[:, :, :whole].reshape(len(first), -1)
        return orders[:, begin * size : end // every * whole + end % every * size]

    def sizes(self, first: int, count: int) -> list[int]:
        """Return how many samples some batches have; arguments as for `batches`."""
        every = self.num_batches
        last = self.num_samples - (every - 1) * self.batch_size
        return [
            min(last, self.batch_size) if number % every == every - 1 else self.batch_size
            for number in range(first, first + count)
        ]

    def epoch(self, epoch: int, *, seed: int, worker: str) -> torch.Tensor:
        """Return the order of the samples in a local epoch, shape ``(num_samples,)``, int64."""
        own = (seed, worker, epoch)
        if own not in self._last:
            self._last.clear()
            self._last[own] = self._drawn(epoch, seed, worker)
        return self._last[own]

    def _drawn(self, epoch: int, seed: int, worker: str) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self.num_samples)
        return shuffled(self.num_samples, derive_seed(seed, "shuffle", worker, epoch))

    def _drawn_together(
        self, epochs: npt.NDArray[np.int64], seed: int, workers: Sequence[str]
    ) -> torch.Tensor:
        """Return the orders of some epochs of several workers, shape ``(workers, epochs, num_samples)``."""
        if not self.shuffle:
            return torch.arange(self.num_samples).expand(*epochs.shape, -1)
        names = [name for name in workers for _ in range(epochs.shape[1])]
        seeds = derive_seeds(seed, "shuffle", each=(names, epochs.ravel().tolist()))
        return shuffled_together(self.num_samples, seeds).view(*epochs.shape, -1)

    def _check(self, first: int, count: int) -> None:
        if first < 0 or count < 0:
            raise ValueError(
                f"first={first} and count={count} must not be negative: batches are numbered from 0."
            )
        if self.num_batches == 0:
            raise ValueError(
                f"drop_last=True leaves no batch of batch_size={self.batch_size} in {self.num_samples} "
                "samples. Use drop_last=False, a smaller batch_size, or fewer workers."
            )


def count_batches(num_samples: int, batch_size: int, drop_last: bool) -> int:
    """Return the number of batches in an epoch; 0 if the only one is too small and left out."""
    return num_samples // batch_size if drop_last else -(-num_samples // batch_size)
