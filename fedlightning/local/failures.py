"""How local work says where it failed: the step. Worker and round are added on the way up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class LocalStepFailed(RuntimeError):
    """An exception raised by the user's code during one local step; the original is its ``__cause__``.

    Args:
        step: Number of the batch in the worker's stream of batches.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"local step {step} failed")
        self.step = step


class LocalStepInterrupted(KeyboardInterrupt):
    """A Ctrl-C during one local step.

    Args:
        step: Number of the batch in the worker's stream of batches.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"local step {step} was interrupted")
        self.step = step


class NotFinite(ArithmeticError):
    """A visit that required finite numbers has ended with NaN or infinity."""


def require_finite(loss: Tensor | None, tensors: Iterable[Tensor | None]) -> None:
    """Check what a visit is about to return.

    Args:
        loss: Its mean loss.
        tensors: Parameters or gradients.

    Raises:
        NotFinite: One of them holds NaN or infinity.
    """
    values = [value.detach() for value in (loss, *tensors) if value is not None and value.is_floating_point()]
    # A norm is finite if all entries are, but for those near the largest number, which is divergence, too.
    norms = torch._foreach_norm(values) if values else ()
    if norms and not torch.isfinite(torch.stack([norm.float() for norm in norms])).all():
        raise NotFinite


@contextmanager
def named_step(step: int) -> Iterator[None]:
    """Attach the number of the local step to whatever is raised in the block."""
    try:
        yield
    except Exception as error:
        raise LocalStepFailed(step) from error
    except KeyboardInterrupt as interrupt:
        raise LocalStepInterrupted(step) from interrupt
