"""Pooling by maxima of images that lie plane by plane, as if they lay channel by channel.

Torch's kernel for the former looks at one number after the other, that for the latter at as many channels at
once as a vector has, and takes a tenth of the time. Both choose the same number of each window, and compute
nothing: so the bits are the same, those of ties and of what is not a number included.

``tests/local/tapes/test_pooling.py`` fails clearly when that is no longer so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_pool = torch.ops.aten.max_pool2d_with_indices

LEAST_CHANNELS = 16
"""As many single-precision numbers as a vector of the widest processors has."""

_TYPES = (torch.float32, torch.float64)
"""Types of which the kernels copy what is not a number bit by bit; of shorter ones, they do not."""

LEAST_NUMBERS = 1 << 13
"""Numbers in images for which it pays to lay them out anew."""


def is_faster_by_channel(operator: Any, args: Sequence[Any]) -> bool:
    """Tell whether a call pools images that had better lie channel by channel, and do not.

    Args:
        operator: Any.
        args: What it is called with.
    """
    if operator is not _pool.default:
        return False
    images: Tensor = args[0]
    return (
        images.device.type == "cpu"
        and images.dtype in _TYPES
        and images.dim() == 4
        and images.shape[1] >= LEAST_CHANNELS
        and images.numel() >= LEAST_NUMBERS
        and images.is_contiguous()
        and not images.is_contiguous(memory_format=torch.channels_last)
    )


def pooled_by_channel(args: Sequence[Any], values: Tensor, indices: Tensor) -> Callable[[], object]:
    """Return a call that pools images by way of memory in which they lie channel by channel.

    Args:
        args: What ``max_pool2d_with_indices`` is called with; the images of shape ``(n, channels, h, w)``.
        values: Where the maxima go, shape ``(n, channels, h', w')``.
        indices: Where it goes where they were found, shape and layout likewise, int64.
    """
    images, *settings = args
    laid_images, laid_values, laid_indices = map(_by_channel, (images, values, indices))

    def pool() -> None:
        laid_images.copy_(images)
        _pool.out(laid_images, *settings, out=laid_values, indices=laid_indices)
        values.copy_(laid_values)
        indices.copy_(laid_indices)

    return pool


def _by_channel(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.channels_last)
