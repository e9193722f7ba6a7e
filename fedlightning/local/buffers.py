"""What becomes of a module's buffers from visit to visit: normalisation statistics, counters, code books."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from fedlightning.local.known import known
from fedlightning.local.memory import WorkerMemory

Buffers = Literal["average", "keep", "reset"]
"""What every visit begins with:

- ``"average"``: the mean of what the last cohort's visits ended with, like parameters;
- ``"keep"``: what the worker's own last visit ended with;
- ``"reset"``: what the fit began with.

In each case the global module has the mean of the last cohort's, for validation and checkpoints.
"""

_NAME = "(buffers)"  # no name that an algorithm would keep something under


@contextmanager
def kept_buffers(module: nn.Module, memory: WorkerMemory) -> Iterator[None]:
    """Give a module the buffers that this worker has kept, and keep what they are at the end of the block.

    Args:
        module: The module at the worker; it begins with its own at the first visit.
        memory: What the worker keeps between visits.
    """
    kept = memory.own.get(_NAME)
    if kept:
        with torch.no_grad():
            torch._foreach_copy_(known(module).buffers, kept)
    yield
    memory.own[_NAME] = [buffer.detach().clone() for buffer in known(module).buffers]
