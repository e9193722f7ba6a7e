"""``self.log`` where the Trainer logs for itself: what it is given is overheard, for the records of a round.

Where values are kept from the Trainer until a round is over, they are recorded by ``logs``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from fedlightning.local.lightning_calls import replaced_log
from fedlightning.local.logs import LoggedValue


class Overheard:
    """Hear the numbers that a module logs.

    Args:
        module: The module, which logs as it does without anybody listening.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        self._log = partial(pl.LightningModule.log, module)
        self._values: dict[str, Tensor] = {}

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Log, and note the value if it is a number; torchmetrics tell theirs in the module's state."""
        self._log(name, value, *args, **kwargs)
        if isinstance(value, Tensor | int | float):
            copied = value.detach().clone().squeeze() if isinstance(value, Tensor) else float(value)
            self._values[name] = torch.as_tensor(copied)

    @property
    def values(self) -> tuple[LoggedValue, ...]:
        """What was logged, in order; the last value of each name."""
        return tuple(LoggedValue(name, value, None, 1, "mean", {}) for name, value in self._values.items())


@contextmanager
def overheard_logs(module: pl.LightningModule) -> Iterator[Overheard]:
    """Listen to ``module.log`` within the block."""
    overheard = Overheard(module)
    with replaced_log(module, overheard.log):
        yield overheard
