"""Weighted means of parameters and buffers, taken one update at a time. Server optimizers live in ``server``.

Memory is that of one model, whatever the size of the cohort. Means are running means, because of what
they keep exactly: the mean of identical copies is the copy, bit for bit, which a sum of weighted terms
is not.
"""

from __future__ import annotations

import cmath
from collections.abc import Sequence

import torch
from torch import Tensor

from fedlightning.local.engine import GradModeOff


class RunningWeight:
    """Turn the weights of a sequence of updates into the steps of a running mean."""

    def __init__(self) -> None:
        self.total = 0.0

    def share_of(self, weight: float) -> float:
        """Return ``weight`` as a share of all weights up to and including this one."""
        if not weight > 0:
            raise ValueError(
                f"weight must be positive, got {weight!r}; leave such a worker out of the average."
            )
        self.total += weight
        return weight / self.total


class ParameterMean:
    """Average lists of parameters or gradients, weighted (McMahan et al. 2017, Algorithm 1).

    ``w <- w + (w_k - w) * n_k / (n_1 + ... + n_k)``: after the last update, ``w`` is
    ``sum_k n_k w_k / sum_k n_k``. Half-precision tensors are averaged in float32. Integers and tensors with
    infinite entries, such as frozen masks, are averaged as buffers are.

    Args:
        room: Tensors like those of the updates, in which the mean is kept where it can be; new ones, unless
            given.

    Example:
        >>> mean = ParameterMean()
        >>> mean.add([torch.tensor([1.0])], weight=10)
        >>> mean.add([torch.tensor([4.0])], weight=20)
        >>> mean.result()
        [tensor([3.])]
    """

    def __init__(self, room: Sequence[Tensor] = ()) -> None:
        self._weight = RunningWeight()
        self._room = room
        self._mean: list[Tensor] = []
        self._dtypes: list[torch.dtype] = []
        self._accumulated: list[torch.dtype] = []
        # What has no running mean, by position; looked for when a second update comes.
        self._others: list[int] | None = None
        self._running: list[int] = []
        self._means_of_others = BufferMean()

    def add(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Take one update into the mean.

        Args:
            tensors: The update's tensors, of the same shapes and in the same order each time; not kept.
            weight: Its weight, as a rule the worker's number of samples; positive.
        """
        before = self._weight.total
        share = self._weight.share_of(weight)
        # The ordinary case, worth being quick: it is taken once per visit.
        if self._others == [] and [tensor.dtype for tensor in tensors] == self._accumulated:
            with GradModeOff():
                torch._foreach_lerp_(self._mean, list(tensors), share)
        else:
            self._add(tensors, weight, before, share)

    @torch.no_grad()
    def _add(self, tensors: Sequence[Tensor], weight: float, before: float, share: float) -> None:
        if not self._mean:
            self._dtypes = [tensor.dtype for tensor in tensors]
            self._mean = self._begun(tensors)
            self._accumulated = [mean.dtype for mean in self._mean]
            return
        if len(tensors) != len(self._mean):
            raise ValueError(
                f"expected {len(self._mean)} tensors as in the first update, got {len(tensors)}."
            )
        if self._others is None:
            self._others = _without_running_mean(self._mean)
            self._running = sorted(set(range(len(tensors))) - set(self._others))
            self._means_of_others.add([self._mean[position] for position in self._others], before)
        if self._others:
            self._means_of_others.add([tensors[position] for position in self._others], weight)
        if self._running:
            means = [self._mean[position] for position in self._running]
            updates = [
                _as(mean.dtype, tensors[position])
                for mean, position in zip(means, self._running, strict=True)
            ]
            torch._foreach_lerp_(means, updates, share)

    def _begun(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the mean of one update."""
        if not _fits(self._room, tensors):
            return [tensor.detach().to(_accumulator(tensor.dtype), copy=True) for tensor in tensors]
        torch._foreach_copy_(list(self._room), list(tensors))
        return list(self._room)

    def result(self) -> list[Tensor]:
        """Return the mean of what was added, in the dtypes that came."""
        for position, mean in zip(self._others or (), self._means_of_others.result(), strict=True):
            self._mean[position] = mean
        return [mean.to(dtype) for mean, dtype in zip(self._mean, self._dtypes, strict=True)]


class BufferMean:
    """Average buffers of any dtype, weighted: running statistics, counters, masks.

    Floating-point buffers are averaged where the workers differ and kept where they agree (an infinite
    entry on which all agree stays infinite). Integers are averaged and rounded. For booleans
    the weighted majority wins, a tie being ``False``. Identical copies give the copy, bit for bit.

    Example:
        >>> mean = BufferMean()
        >>> mean.add([torch.tensor(10), torch.tensor(True)], weight=1)
        >>> mean.add([torch.tensor(20), torch.tensor(False)], weight=2)
        >>> mean.result()
        [tensor(17), tensor(False)]
    """

    def __init__(self) -> None:
        self._weight = RunningWeight()
        self._first: list[Tensor] = []
        self._mean: list[Tensor] = []

    @torch.no_grad()
    def add(self, buffers: Sequence[Tensor], weight: float) -> None:
        """Take one worker's buffers into the mean.

        Args:
            buffers: Tensors of the same shapes, dtypes and order each time; not kept.
            weight: As for the worker's parameters; positive.
        """
        share = self._weight.share_of(weight)
        if not buffers and not self._first:
            return
        if self._weight.total == weight:
            self._first = [buffer.detach().clone() for buffer in buffers]
            self._mean = [_centred(buffer, first) for buffer, first in zip(buffers, self._first, strict=True)]
            return
        for mean, first, buffer in zip(self._mean, self._first, buffers, strict=True):
            value = _centred(buffer.detach(), first)
            mean.copy_(torch.where(mean == value, mean, mean.lerp(value, share)))

    def result(self) -> list[Tensor]:
        """Return the mean of what was added, in the dtypes that came."""
        return [_uncentred(mean, first) for mean, first in zip(self._mean, self._first, strict=True)]


def _fits(room: Sequence[Tensor], tensors: Sequence[Tensor]) -> bool:
    """Tell whether a mean of tensors can be kept in others."""
    return len(room) == len(tensors) > 0 and all(
        (own.shape, own.dtype, own.device) == (tensor.shape, _accumulator(tensor.dtype), tensor.device)
        for own, tensor in zip(room, tensors, strict=True)
    )


def _without_running_mean(tensors: Sequence[Tensor]) -> list[int]:
    """Find integers, which cannot be interpolated, and infinities, between which it gives no number."""
    return [
        position
        for position, tensor in enumerate(tensors)
        if _is_integer(tensor) or not (_has_finite_sum(tensor) or torch.linalg.vector_norm(tensor).isfinite())
    ]


def _has_finite_sum(tensor: Tensor) -> bool:
    # Then all entries are finite, too; it takes a sixth of the time of a norm.
    return cmath.isfinite(tensor.sum().item())


def _as(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _centred(buffer: Tensor, first: Tensor) -> Tensor:
    """Return what is averaged: the value itself, or for integers the distance to the first worker's.

    A distance of integers fits into float64 where the integers themselves (above 2**53) may not.
    """
    if buffer.dtype == torch.bool:
        return buffer.to(torch.float64)
    if _is_integer(buffer):
        return (buffer.to(torch.int64) - first.to(torch.int64)).to(torch.float64)
    return buffer.to(_accumulator(buffer.dtype), copy=True)


def _uncentred(mean: Tensor, first: Tensor) -> Tensor:
    if first.dtype == torch.bool:
        return mean > 0.5
    if _is_integer(first):
        return (first.to(torch.int64) + mean.round().to(torch.int64)).to(first.dtype)
    return mean.to(first.dtype)


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())
