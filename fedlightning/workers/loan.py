"""What a controller lends to workers of its own process, one after the other, for a program to work on.

How a worker runs the program is in `host`; whether it may be lent something, in `virtual`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves

from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.programs import program_name


class Loan:
    """Hold what is lent, and weigh it once where it weighs the same at each visit.

    Args:
        program: A registered function.
        lent: Its first arguments: modules, optimizers, lists of them. Parameters of modules keep their sizes
            as long as the loan is in use.

    Attributes:
        program: Name of the program.
        lent: The arguments.

    Example:
        >>> from fedlightning.workers import VirtualWorker, program
        >>> @program(returns="metrics")
        ... def weights_of(module):
        ...     return module.weight.numel()
        >>> loan = Loan(weights_of, [nn.Linear(3, 2)])
        >>> VirtualWorker(id="alice").lend(loan), VirtualWorker(id="bob").lend(loan)
        (6, 6)
    """

    def __init__(self, program: Callable[..., Any], lent: Sequence[Any]) -> None:
        self.program = program_name(program)
        self.lent = lent
        self._items = [(value, type(value).__name__, _lasting_bytes(value)) for value in tree_leaves(lent)]

    def weighed(self) -> Iterator[tuple[str, int, Any]]:
        """Yield the type, the bytes and the object of each module and optimizer as it is now."""
        for value, kind, nbytes in self._items:
            yield kind, payload_bytes(value) if nbytes is None else nbytes, value


def _lasting_bytes(value: Any) -> int | None:
    """Weigh what keeps its weight: a module without buffers, which can be exchanged for others."""
    if isinstance(value, nn.Module) and next(value.buffers(), None) is None:
        return payload_bytes(value)
    return None
