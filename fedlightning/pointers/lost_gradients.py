"""Keep a gradient from being lost when its tensor has left: whoever computes it then is told so."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from fedlightning.pointers.arguments import handle_of
from fedlightning.pointers.errors import PointerError


def refuse_gradient(leaf: Tensor, what_happened: str) -> None:
    """Make a later backward raise, where it would accumulate into a leaf that nobody sees any more.

    Args:
        leaf: A tensor that is about to leave. If nothing was computed from it, nothing happens.
        what_happened: Completes "this parameter ... after the loss was computed".
    """
    if handle_of(leaf) is not None or not (leaf.is_leaf and leaf.requires_grad):
        return

    def refuse(gradients: Any) -> NoReturn:
        raise PointerError(
            f"a tensor of shape {tuple(leaf.shape)} {what_happened} after this was computed from it, and its "
            f"gradient would be lost: call backward() before, or compute again now"
        )

    # Without a graph there is no node yet; the one made here then goes at once, and the hook with it.
    torch.autograd.graph.get_gradient_edge(leaf).node.register_prehook(refuse)
