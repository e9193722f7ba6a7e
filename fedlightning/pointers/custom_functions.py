"""Keep user-defined autograd functions from losing their gradient on pointers."""

from __future__ import annotations

from typing import Any

from torch.autograd import Function

from fedlightning.pointers.arguments import handle_of
from fedlightning.pointers.errors import UnsupportedOperationError

# For torch's own functions of this kind, whose names a user has not called.
_REMEDIES = {
    "CheckpointFunction": "Use checkpoint(..., use_reentrant=False)",
    "BackwardHookFunction": "Remove the module's backward hooks, or train it with worker.run",
}
_apply = Function.__dict__["apply"].__func__


def _apply_unless_remote(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
    if any(handle_of(value) is not None for value in (*args, *kwargs.values())):
        remedy = _REMEDIES.get(cls.__name__, "Call it inside a program, with worker.run")
        raise UnsupportedOperationError(
            f"{cls.__name__}.apply got a pointer: its backward is code of this process, which the graph "
            f"at the worker would not run. {remedy}"
        )
    return _apply(cls, *args, **kwargs)


def guard_custom_functions() -> None:
    """Make ``autograd.Function.apply`` refuse pointers; local tensors are not affected.

    ``apply`` is not overridable, and without a guard it would run forward at the worker and drop the gradient
    without a word.
    """
    Function.apply = classmethod(_apply_unless_remote)  # type: ignore[assignment, method-assign]
