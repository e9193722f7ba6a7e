"""Operations that hand out memory as it was left: at workers it is blank, or it would show what was freed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedlightning.pointers.arguments import handle_of
from fedlightning.pointers.operations import OPERATIONS, Operation
from fedlightning.workers.unchecked import checked
from fedlightning.workers.within_bounds import within_bounds

_MAKE_NEW = (
    "empty",
    "empty_like",
    "empty_permuted",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "new",
)
_GROW = ("resize", "resize_", "resize_as", "resize_as_", "resize_as_sparse_")
# `backward` has a message of its own, which follows gradients; deep copies would copy gradients unseen.
_NOT_BY_MESSAGE = frozenset({"torch.Tensor.backward", "torch.autograd.backward", "torch.Tensor.__deepcopy__"})


def operations_at_workers(operations: Mapping[str, Operation]) -> dict[str, Operation]:
    """Make the table of what a worker runs out of the allow-list.

    Args:
        operations: The allow-list, by name.

    Returns:
        The same without what has messages of its own, and with blank memory where torch leaves it as it was.
    """
    table = {name: function for name, function in operations.items() if name not in _NOT_BY_MESSAGE}
    for name, function in table.items():
        short = name.rpartition(".")[2]
        if short in _MAKE_NEW:
            table[name] = _blank(function)
        elif short in _GROW:
            table[name] = _grown_blank(function)
    return table


def _blank(function: Operation) -> Operation:
    def make(*args: Any, **kwargs: Any) -> Tensor:
        made: Tensor = function(*args, **kwargs)
        # The memory behind a pointer is another worker's, who has blanked it.
        if made.layout is torch.strided and handle_of(made) is None:
            _blank_from(made, 0)
        return made

    return make


def _grown_blank(function: Operation) -> Operation:
    def resize(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if handle_of(tensor) is not None:
            resized: Tensor = function(tensor, *args, **kwargs)
            return resized
        before = tensor.untyped_storage().nbytes()
        resized = function(tensor, *args, **kwargs)
        _blank_from(resized, before)
        return resized

    return resize


def _blank_from(tensor: Tensor, first: int) -> None:
    # The whole memory, with the gaps that strides leave.
    storage = tensor.untyped_storage()
    if storage.nbytes() > first:
        torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)[first:].zero_()


WORKER_OPERATIONS = checked(operations_at_workers(within_bounds(OPERATIONS)))
"""What a worker runs, by name."""
