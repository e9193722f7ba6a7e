"""Put checks before kernels that trust their arguments, and reach past memory where these do not fit.

What lies beside a tensor in memory may be anybody's. The checks themselves are in `kernel_checks`; values,
which may be private, are not checked but clamped, in `within_bounds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, wraps
from typing import Any

import torch

from fedlightning.pointers.operations import Operation
from fedlightning.workers.kernel_checks import CHECKS, Check, require

# For hardware and number formats that pointers do not serve; some hand out memory as it was left.
_NOT_OFFERED = ("choose_qparams_", "fbgemm_", "miopen_", "cudnn_", "quantized_")


def checked(operations: Mapping[str, Operation]) -> dict[str, Operation]:
    """Put checks before the kernels that need them, and leave out those for other number formats.

    Args:
        operations: What a worker runs, by name.

    Returns:
        The same, safe against arguments that do not fit each other.
    """
    return {
        name: _guarded(name, function)
        for name, function in operations.items()
        if not name.rpartition(".")[2].startswith(_NOT_OFFERED)
    }


def _guarded(name: str, function: Operation) -> Operation:
    short = name.rpartition(".")[2]
    if isinstance(function, torch._ops.OpOverloadPacket) and (kinds := _kinds_in(function)):
        function = _after(partial(_no_numbers_for, kinds), function)
    return _after(CHECKS[short], function) if short in CHECKS else function


def _after(check: Check, function: Operation) -> Operation:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        check(*args, **kwargs)
        return function(*args, **kwargs)

    return run


def _kinds_in(operator: Any) -> list[tuple[int, str]]:
    """Find the arguments that name a type of numbers, a layout or the like, by position and name."""
    declared = enumerate(operator.default._schema.arguments) if hasattr(operator, "default") else ()
    return [
        (position, argument.name)
        for position, argument in declared
        if any(kind in str(argument.real_type) for kind in ("ScalarType", "Layout", "MemoryFormat"))
    ]


def _no_numbers_for(kinds: list[tuple[int, str]], *args: Any, **named: Any) -> None:
    # torch takes any number for them, and looks it up in a table without an end.
    given = [args[position] if position < len(args) else named.get(name) for position, name in kinds]
    require(not any(isinstance(value, int) for value in given), "numbers and names of types")
