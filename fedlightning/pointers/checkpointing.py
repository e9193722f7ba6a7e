"""Activation checkpointing over pointers: the one use of torch's private signal that ends a recomputation."""

from __future__ import annotations

from torch.utils.checkpoint import _StopRecomputationError


def reraise_stop(error: Exception) -> None:
    """Raise torch's signal to stop recomputing, if that is what came out of an operation.

    ``checkpoint(..., use_reentrant=False)`` recomputes a forward only as far as its saved tensors are needed,
    and then raises through the operation that was running. At a worker this looks like a failure.

    Args:
        error: What an operation at a worker raised.
    """
    if isinstance(error.__cause__, _StopRecomputationError):
        raise error.__cause__
