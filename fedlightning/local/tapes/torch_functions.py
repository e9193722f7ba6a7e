"""Which of torch's functions do nothing but compute: they neither set anything, nor write files.

What its settings are is read in ``torch_settings``.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

_COMPUTING = (
    *("torch.nn", "torch.functional", "torch._tensor", "torch.linalg", "torch.special", "torch.fft"),
    *("torch.func", "torch._functorch", "torch.amp", "torch.autograd.grad_mode", "torch.autograd.functional"),
    *("torch.utils.checkpoint", "torch.distributions"),
    "torch._jit_internal",  # what chooses between two functions, such as those of max-pooling
)
"""Where functions and classes of Python are that compute."""


def is_module_of_torch(value: Any) -> bool:
    """Tell whether it is torch, or one of its modules.

    Args:
        value: Anything.
    """
    return isinstance(value, ModuleType) and value.__name__.split(".")[0] == "torch"


def only_computes(value: Any) -> bool:
    """Tell whether it is a function or class of torch's that does nothing but compute.

    Args:
        value: Anything.
    """
    if isinstance(value, MethodDescriptorType):
        return _begins(value.__objclass__.__module__, ("torch",))
    if isinstance(value, BuiltinFunctionType):
        # Those that set, and tell of settings, are functions of a module right within torch.
        home = value.__self__
        sets = isinstance(home, ModuleType) and value.__module__ == "torch"
        return not sets and _begins(value.__module__, ("torch",))
    if isinstance(value, FunctionType):
        return _begins(value.__module__, (*_COMPUTING, "torch.autograd")) or value.__name__ == "is_tensor"
    if isinstance(value, type):
        return value.__module__ == "torch" or _begins(value.__module__, _COMPUTING)
    return False


def _begins(path: str | None, starts: tuple[str, ...]) -> bool:
    return any(f"{path}.".startswith(f"{start}.") for start in starts)
