"""Exchange what two Python tensors are, keeping their identity: the one use of torch's private swap."""

from __future__ import annotations

import torch
from torch import Tensor


def exchange(first: Tensor, second: Tensor) -> None:
    """Exchange implementation and class of two tensors; their Python attributes stay.

    `torch.utils.swap_tensors` does the same and more, but refuses tensors with weak references (every
    parameter of an LSTM has them), on a live graph, or with live views. ``parameter.data = pointer`` crashes
    later.

    Args:
        first: Any tensor.
        second: Any tensor.
    """
    # Autocast remembers the weights that it has cast by weak references, which the swap does not allow.
    torch.clear_autocast_cache()
    torch._C._swap_tensor_impl(first, second)
    first_class = type(first)
    first.__class__ = type(second)
    second.__class__ = first_class
