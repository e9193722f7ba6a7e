"""How local work says where it failed: the step. Worker and round are added on the way up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LocalStepFailed(RuntimeError):
    """An exception raised by the user's code during one local step; the original is its ``__cause__``.

    Args:
        step: Number of the batch in the worker's stream of batches.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"local step {step} failed")
        self.step = step


@contextmanager
def named_step(step: int) -> Iterator[None]:
    """Attach the number of the local step to whatever is raised in the block."""
    try:
        yield
    except Exception as error:
        raise LocalStepFailed(step) from error
