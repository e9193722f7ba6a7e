"""Make the tensors that a module creates in its forward at the worker where the module is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from fedlightning.pointers.execution import execute
from fedlightning.pointers.location import Location
from fedlightning.pointers.operations import FACTORIES, NAMES
from fedlightning.pointers.tensor import PointerTensor

_FACTORY_FUNCTIONS = frozenset(FACTORIES.values())
# Exactly these classes make no tensor in their forward, which a test holds them to. To watch one nevertheless
# would cost as much as the message that it sends.
WITHOUT_FACTORIES = frozenset(
    {
        *(nn.Sequential, nn.Identity, nn.Flatten, nn.Unflatten, nn.Linear, nn.Embedding),
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh),
        *(nn.Softmax, nn.LogSoftmax),
    }
)


class FactoriesAt(TorchFunctionMode):
    """Run calls such as ``torch.zeros(...)`` at a worker: an LSTM's first state goes where its weights are.

    The forward of a module that was sent does so by itself. A context manager for every other function that
    makes tensors on its way.

    Args:
        location: The worker.

    Example:
        >>> import torch
        >>> from fedlightning.pointers import FactoriesAt
        >>> from fedlightning.workers import VirtualWorker
        >>> bob = VirtualWorker(id="bob")
        >>> with FactoriesAt(bob):
        ...     ones = torch.ones(2)
        >>> (ones + ones).get()
        tensor([2., 2.])
    """

    def __init__(self, location: Location) -> None:
        super().__init__()
        self._location = location

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _FACTORY_FUNCTIONS:
            return execute(PointerTensor, NAMES[func], args, kwargs or {}, self._location)
        return func(*args, **(kwargs or {}))


class _Forward(threading.local):
    """Enter the mode with the outermost forward and leave with it, in each thread for itself."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._depth = 0
        self._mode: FactoriesAt | None = None

    def begin(self, module: nn.Module, args: Any) -> None:
        self._depth += 1
        if self._mode is None:
            self._mode = FactoriesAt(self._location)
            self._mode.__enter__()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        # Called after an exception too, and then perhaps without a beginning.
        self._depth = max(self._depth - 1, 0)
        if self._depth == 0 and self._mode is not None:
            mode, self._mode = self._mode, None
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def __deepcopy__(self, memo: dict[int, Any]) -> _Forward:
        return self


def watch_forward(module: nn.Module, location: Location) -> list[RemovableHandle]:
    """Run the factories of a module's forward, and of its children's, at a worker.

    Args:
        module: The module; any part of it may be called.
        location: The worker.

    Returns:
        Handles that end it.
    """
    forward = _Forward(location)
    handles = []
    for part in module.modules():
        if type(part) in WITHOUT_FACTORIES:
            continue
        handles.append(part.register_forward_pre_hook(forward.begin, prepend=True))
        handles.append(part.register_forward_hook(forward.end, always_call=True))
    return handles
