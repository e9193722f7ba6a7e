"""The local steps of one visit: batch after batch, by the loop that the module's optimization needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.automatic import AutomaticOptimization, LossTerm
from fedlightning.local.corrections import StepCorrection
from fedlightning.local.failures import LocalStepFailed, LocalStepInterrupted
from fedlightning.local.known import known
from fedlightning.local.lean import CorrectedSGD, LeanOptimization, lean_optimization
from fedlightning.local.logs import LogRecorder, recorded_logs
from fedlightning.local.manual import ManualOptimization
from fedlightning.local.streams import Stream
from fedlightning.local.visit import Visit


class VisitSteps:
    """Train on the batches of a visit, in place.

    Args:
        module: The module at the worker.
        optimizers: Its optimizers, at the worker.
        stream: The worker's batches.
        visit: Which of them.
        revisits: Whether batches may be taken again, so that they are held in memory.

    Attributes:
        losses: Losses of the steps that were not skipped, each of shape ``()``.
        alter: Changes each batch before it is trained on; ``None`` for nothing.
        silent: Above 0 while nobody is to be told of losses and logs.
        left_gradients: Whether the last step left gradients that a module which steps by hand has not used.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        optimizers: Sequence[Optimizer],
        stream: Stream,
        visit: Visit,
        *,
        revisits: bool = False,
    ) -> None:
        self.losses: list[Tensor] = []
        self.alter: Callable[[Any], Any] | None = None
        self.silent = 0
        self.left_gradients = False
        self._module = module
        self._optimizers = optimizers
        self._stream = stream
        self._visit = visit
        self._held: list[tuple[int, Any]] | None = [] if revisits else None

    @property
    def count(self) -> int:
        """Batches of the visit."""
        return self._visit.steps

    @property
    def accumulated(self) -> int:
        """Batches whose gradients are accumulated into one step."""
        return self._visit.accumulate

    @property
    def loss(self) -> Tensor | None:
        """Mean loss, shape ``()``; ``None`` where every step was skipped."""
        return torch.stack(self.losses).mean() if self.losses else None

    def take(
        self,
        logs: LogRecorder,
        first: int = 0,
        steps: int | None = None,
        add_to_loss: LossTerm | None = None,
        correction: StepCorrection | None = None,
    ) -> None:
        """Train on batches of the visit, each once.

        Args:
            logs: Records what the steps log.
            first: Number of the first batch within the visit.
            steps: How many; ``None`` for all that follow.
            add_to_loss: A term that is added to each batch's loss, under automatic optimization.
            correction: What is done right before each step of an optimizer.

        Raises:
            LocalStepFailed: The user's code raised; names the step.
            LocalStepInterrupted: Somebody pressed Ctrl-C; names the step.
        """
        steps = self.count - first if steps is None else steps
        with recorded_logs(self._module) if self.silent else nullcontext(logs) as records:
            optimization = self._optimization(records, add_to_loss, correction)
            with _heard(correction, optimization, self._optimizers):
                losses = self._take(optimization, first, steps)
        if not self.silent:
            self.losses += losses
            self.left_gradients = _leaves_gradients(optimization)

    def _take(
        self,
        optimization: ManualOptimization | AutomaticOptimization | LeanOptimization,
        first: int,
        steps: int,
    ) -> list[Tensor]:
        stream, passes_batch_idx = self._stream, self._visit.passes_batch_idx
        batches = self._batches(first, steps)
        step = first = self._visit.first_step + first
        end = first + steps
        losses: list[Tensor] = []
        try:
            for step in range(first, end):
                numbered = next(batches, None)
                if numbered is None:
                    break
                batch_idx, batch = numbered
                if batch is None:
                    continue
                last = step + 1 == end or stream.ends_after(batch_idx)
                loss = optimization.step(batch, batch_idx, passes_batch_idx=passes_batch_idx, last=last)
                if loss is not None:
                    losses.append(loss)
        except Exception as error:
            raise LocalStepFailed(step) from error
        except KeyboardInterrupt as interrupt:
            raise LocalStepInterrupted(step) from interrupt
        return losses

    def _batches(self, first: int, steps: int) -> Iterator[tuple[int, Any]]:
        batches, alter = self._unaltered(first, steps), self.alter
        return batches if alter is None else ((number, alter(batch)) for number, batch in batches)

    def _unaltered(self, first: int, steps: int) -> Iterator[tuple[int, Any]]:
        if self._held is None:
            return self._stream.take(self._visit.first_step + first, steps)
        if not self._held:
            self._held = list(self._stream.take(self._visit.first_step, self.count))
        return iter(self._held[first : first + steps])

    def _optimization(
        self, logs: LogRecorder, add_to_loss: LossTerm | None, correction: StepCorrection | None
    ) -> ManualOptimization | AutomaticOptimization | LeanOptimization:
        module, optimizers = self._module, self._optimizers
        if not module.automatic_optimization:
            return ManualOptimization(module, optimizers, logs)
        if self._visit.accumulate == 1 and add_to_loss is None and not known(module).why_not_lean:
            return lean_optimization(module, optimizers[0], logs, correction)
        return AutomaticOptimization(
            module, optimizers[0], logs, accumulate=self._visit.accumulate, add_to_loss=add_to_loss
        )


def _heard(
    correction: StepCorrection | None,
    optimization: ManualOptimization | AutomaticOptimization | LeanOptimization,
    optimizers: Sequence[Optimizer],
) -> AbstractContextManager[None]:
    """Let a correction hear of the optimizers' steps, where the loop does not tell it of them by itself."""
    if correction is None or isinstance(optimization, CorrectedSGD):
        return nullcontext()
    return correction.listening_to(optimizers)


def _leaves_gradients(optimization: ManualOptimization | AutomaticOptimization | LeanOptimization) -> bool:
    return isinstance(optimization, ManualOptimization) and optimization.leaves_gradients
