"""A step as the tensor operations that it came down to, to be made again on other batches.

What a step of many workers costs in Python (vmap, autograd, the module itself) is as much as what small
networks compute. It is the same work in every step with batches of one shape, and comes down to the same
operations on other numbers. All that they read and write stays where it is: so views are made once, nothing
is allocated, and what is computed is found in the cache. When a tape may be played is decided in ``taped``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fedlightning.local.engine import GradModeOff


class Tape:
    """Operations on memory that stays where it is.

    Args:
        calls: The operations.
        inputs: Where batches are put.
        outputs: Where results are found.

    Attributes:
        inputs: As given.
        outputs: As given; they hold until the next play of any tape with the same `Arena`.
    """

    def __init__(
        self, calls: Sequence[Callable[[], object]], inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> None:
        self._calls = calls
        self.inputs = inputs
        self.outputs = outputs

    def play(self) -> None:
        """Make the operations again, on what has been put into the inputs."""
        with GradModeOff():
            for call in self._calls:
                call()

    def __len__(self) -> int:
        return len(self._calls)
