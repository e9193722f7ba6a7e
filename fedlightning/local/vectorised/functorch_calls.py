"""The private calls of torch's vmap that the fast operators need, in one place.

``tests/local/vectorised/test_functorch_calls.py`` fails clearly when they move.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._C import _functorch


def of_workers(value: Any) -> Tensor | None:
    """Return the memory behind a tensor of which vmap shows one worker's part.

    Args:
        value: What an operator was called with under vmap.

    Returns:
        All workers' parts, shape ``(workers, *value.shape)``; ``None`` for what all workers share.
    """
    if not isinstance(value, Tensor) or not _functorch.is_batchedtensor(value):
        return None
    tensor, dim = _functorch._unwrap_batched(value, _functorch.maybe_get_level(value))
    return tensor.movedim(dim, 0) if dim else tensor


def one_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Show vmap one worker's part of a tensor, as it shows that of another.

    Args:
        tensor: All workers' parts, shape ``(workers, ...)``.
        like: What vmap shows of another tensor.
    """
    shown: Tensor = _functorch._add_batch_dim(tensor, 0, _functorch.maybe_get_level(like))
    return shown


def is_shown_by_vmap(value: Any) -> bool:
    """Tell whether a value is a tensor of one worker, which has no meaning once the step is over."""
    return isinstance(value, Tensor) and bool(_functorch.is_functorch_wrapped_tensor(value))
