"""Visits carried out one after the other: what `train_locally` does at a worker, who is not made.

Who is visited, what is done about a visit that fails, and where updates go is for whoever asks for a visit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.failures import LocalStepFailed, LocalStepInterrupted, require_finite
from fedlightning.local.known import known
from fedlightning.local.logs import recorded_by
from fedlightning.local.metrics import MetricState, are_updated, report_states, reset_metrics
from fedlightning.local.one_by_one.batches import VisitBatch, VisitBatches
from fedlightning.local.one_by_one.counted_later import CountFailed
from fedlightning.local.one_by_one.logs import VisitLogs
from fedlightning.local.one_by_one.losses import VisitLosses, mean_of
from fedlightning.local.one_by_one.resident import resident_optimization
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.one_by_one.taped import steps_by_tape
from fedlightning.local.randomness import isolated_streams, seed_streams
from fedlightning.local.vectorised.chunks import Numbers
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.vectorised.reports import ChunkReports
from fedlightning.local.visit import Visit


def why_not_one_by_one(module: pl.LightningModule, optimizers: Sequence[Optimizer], visit: Visit) -> str:
    """Say what needs a visit to be made by itself.

    Args:
        module: The module, attached to a Trainer.
        optimizers: Its optimizers.
        visit: Any of the visits.

    Returns:
        The reason, in a few words; empty if there is none.
    """
    if reason := known(module).why_not_lean:
        return reason
    if len(optimizers) != 1:
        return f"{len(optimizers)} optimizers"
    if visit.accumulate > 1:
        return "accumulate_grad_batches"
    if visit.keeps_buffers or visit.keeps_gradients or visit.schedulers:
        return "what stays at a worker, or goes along with the module"
    if module.device.type != "cpu":
        return f"a module on {module.device}"
    return ""


class OneByOne:
    """Carry out visits on the module itself, one by one; whoever asks for one puts its start there before.

    Args:
        module: The module, attached to a Trainer.
        optimizer: Its optimizer, with the settings of the round; a visit may change them.
        errands: The visits; those that are made are made in their order.
        tapes: Those of the steps of earlier rounds, to be gone on with; ``None`` to take each step anew.
        batches: The visits' batches, where somebody has them already.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        optimizer: Optimizer,
        errands: PooledErrands,
        tapes: StepTapes | None = None,
        batches: VisitBatches | None = None,
    ) -> None:
        self._module = module
        self._optimizer = optimizer
        self._visit = errands.visit
        self._first: list[int] = errands.first.tolist()
        self._steps: list[int] = errands.steps.tolist()
        self._seeds = errands.seeds()
        self._workers = errands.workers
        self._states = errands.states_kept
        self._batches = batches or VisitBatches(errands)
        self._logs = VisitLogs(module)
        self._losses = VisitLosses()
        self._optimization = resident_optimization(module, optimizer, self._logs)
        self._steps_by_tape = None
        if tapes is not None:
            self._steps_by_tape = steps_by_tape(
                tapes,
                module,
                self._optimization,
                self._logs,
                self._batches.kinds,
                errands.visit,
                sum(self._steps),
            )
        self._resets_metrics = bool(known(module).metrics)
        self._samples: dict[int, int] = {}
        self._metrics: dict[int, tuple[MetricState, ...]] = {}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Carry out visits within the block, in which nothing but them draws random numbers."""
        with isolated_streams(), self.at_work_alone():
            yield

    @contextmanager
    def at_work_alone(self) -> Iterator[None]:
        """Do likewise where nothing but visits draws random numbers anyway."""
        with recorded_by(self._logs):
            self._put_away()
            yield

    def visit(self, number: int) -> None:
        """Train the module on the batches of a visit, in place.

        Args:
            number: Its position.

        Raises:
            LocalStepFailed: The user's code raised; names the step. The visit does not count, nor does it in
                the other cases.
            LocalStepInterrupted: Somebody pressed Ctrl-C; names the step.
            NotFinite: The visit requires finite numbers, and has ended with others.
        """
        logs, module = self._logs, self._module
        seed_streams(self._seeds[number])
        if self._resets_metrics:
            reset_metrics(module)
        logs.samples = 0
        if self._states is not None:
            self._states.lend_to(self._optimizer, self._workers[number])
        try:
            losses, dtype = self._take_steps(number)
            # Most metrics count in validation only.
            self._resets_metrics = are_updated(module)
            self._require_finite(losses, dtype)
            states = report_states(module) if self._resets_metrics else ()
            if self._states is not None:
                self._states.take_from(self._optimizer, self._workers[number])
        except BaseException:
            self._resets_metrics = bool(known(module).metrics)
            logs.drop_visit()
            raise
        finally:
            self._put_away()
        logs.end_visit(number)
        self._samples[number] = logs.samples
        if losses:
            self._losses.add(number, losses, dtype)
        if states:
            self._metrics[number] = states

    def _require_finite(self, losses: list[float], dtype: torch.dtype) -> None:
        if self._visit.requires_finite:
            loss = mean_of(losses, dtype, len(losses))[0] if losses else None
            require_finite(loss, known(self._module).parameters)

    def _take_steps(self, number: int) -> tuple[list[float], torch.dtype]:
        """Take the steps of a visit, and return their losses."""
        taped = self._steps_by_tape
        take = self._take if taped is None else taped.take
        losses: list[float] = []
        dtype = torch.get_default_dtype()
        step = first = self._first[number]
        if taped is not None:
            taped.begin_visit()
        try:
            batches = self._batches.of(number, each_by_itself=taped is not None and taped.has_tapes)
            for step, batch in enumerate(batches, first):  # noqa: B007 - it tells where
                loss = take(batch)
                if loss is not None:
                    losses.append(loss.item())
                    dtype = loss.dtype
            if taped is not None:
                taped.end_visit()
        except CountFailed as failed:
            raise LocalStepFailed(first + failed.step) from failed.__cause__
        except Exception as error:
            raise LocalStepFailed(step) from error
        except KeyboardInterrupt as interrupt:
            raise LocalStepInterrupted(step) from interrupt
        return losses, dtype

    def _take(self, batch: VisitBatch) -> Tensor | None:
        tensors = batch.tensors
        self._logs.start_step_of(tensors, batch.size)
        passes = self._visit.passes_batch_idx
        return self._optimization.take(tensors, batch.number, passes_batch_idx=passes)

    def _put_away(self) -> None:
        """Leave nothing to the next visit but the module's tensors and attributes."""
        for parameter in known(self._module).parameters:
            parameter.grad = None
        if self._optimizer.state:
            self._optimizer.state = defaultdict(dict)

    def take_reports(self) -> tuple[Numbers, ChunkReports]:
        """Return what visits report that have not failed, and their positions, in order.

        Asked for again, it tells of those since.
        """
        samples, self._samples = self._samples, {}
        losses, self._losses = self._losses, VisitLosses()
        done = np.array(list(samples), dtype=np.int64)
        columns = self._logs.take_columns()
        return done, ChunkReports(
            steps=np.array([self._steps[number] for number in samples], dtype=np.int64),
            losses=losses.means(done),
            samples=np.array(list(samples.values()), dtype=np.int64),
            finite=np.ones(len(done), dtype=np.bool_),
            logs=[replace(column, rows=np.searchsorted(done, column.rows)) for column in columns],
            told=losses.are_of(done),
        )

    def take_metrics(self) -> Mapping[int, tuple[MetricState, ...]]:
        """Return the states of the torchmetrics that visits have updated, by position; likewise."""
        metrics, self._metrics = self._metrics, {}
        return metrics
