"""The visits of many workers at once: what `train_locally` does with one, for a chunk of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.lean import count_as_step
from fedlightning.local.lightning_calls import replaced_log
from fedlightning.local.logs import LoggedValue
from fedlightning.local.vectorised.batches import StackedBatch, batches_of
from fedlightning.local.vectorised.chunks import Errand, chunks_of
from fedlightning.local.vectorised.compiled import CompiledSteps, why_not_compilable
from fedlightning.local.vectorised.logs import ChunkLogs
from fedlightning.local.vectorised.optimizers import StackedOptimizer
from fedlightning.local.vectorised.randomness import WorkerStreams
from fedlightning.local.vectorised.refusal import NotBatchable, in_few_words
from fedlightning.local.vectorised.stack import Places, Stack
from fedlightning.local.vectorised.step import BatchedStep, Gradients
from fedlightning.local.visit import Visit, VisitReport


@dataclass(frozen=True)
class TrainedChunk:
    """What visits that were carried out together have come to. It holds until the next chunk starts.

    Args:
        numbers: Positions of the visits among those that were given.
        reports: Of each, as of a visit that was carried out alone.
        stack: Where their modules' tensors are, in rows of the same order.
    """

    numbers: Sequence[int]
    reports: Sequence[VisitReport]
    stack: Stack

    def parameters_of(self, row: int) -> list[Tensor]:
        """Return all parameters of one worker's module, as views without a graph."""
        return self.stack.parameters_of(row)

    def buffers_of(self, row: int) -> list[Tensor]:
        """Return all buffers of one worker's module, as views."""
        return self.stack.buffers_of(row)

    def mean_parameters(self, weights: Sequence[float]) -> list[Tensor]:
        """Return the weighted mean of the workers' parameters.

        Args:
            weights: One for each of them, positive.
        """
        return self.stack.mean_parameters(weights)


class VectorisedTraining:
    """Train a module at many workers at once, chunk by chunk; the module itself stays as it is.

    Args:
        module: The module, attached to a Trainer; nothing speaks against it (`fitness`, `trial`).
        optimizer: Its optimizer, with the settings of the round; not changed.
        chunk: How many workers take their steps together at most.
        numbered: Whether ``training_step`` looks at the number of a batch.
        draws: Whether it draws random numbers.
        compiled: Whether steps are compiled, where that works.

    Attributes:
        draws_made: How often it has drawn some, if it may.
        why_not_compiled: Why steps are not compiled; empty if they are, or nobody has asked for it.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        optimizer: Optimizer,
        *,
        chunk: int,
        numbered: bool,
        draws: bool,
        compiled: bool = False,
    ) -> None:
        self._module = module
        self._optimizer = optimizer
        self._numbered = numbered
        self._draws = draws
        self._chunk = chunk
        self._places = Places(module, optimizer)
        self._stack = Stack(self._places, chunk)
        self.draws_made = 0
        self.why_not_compiled = why_not_compilable(module, draws=draws) if compiled else ""
        self._asks_for_graphs = compiled and not self.why_not_compiled
        self._compiled: CompiledSteps | None = None

    def train(self, errands: Sequence[Errand]) -> Iterator[TrainedChunk]:
        """Carry out visits, all from the module as it is now, and yield what has become of them.

        Args:
            errands: The visits.

        Yields:
            Chunk after chunk; who is in which is a function of ``errands`` alone.

        Raises:
            NotBatchable: A step cannot be taken for several workers at once. What was yielded before counts.
        """
        start, buffers = [tensor.clone() for tensor in self._places.start], self._places.buffers
        for numbers in chunks_of(errands, self._chunk):
            self._stack.begin(len(numbers), start, buffers)
            reports = self._reports([errands[number] for number in numbers])
            count_as_step(self._optimizer)
            yield TrainedChunk(numbers, reports, self._stack)

    def _reports(self, errands: Sequence[Errand]) -> list[VisitReport]:
        """Carry out the visits of one chunk, whose workers lie in the stack."""
        optimizer = StackedOptimizer(self._optimizer, len(errands), self._places.groups)
        optimizer.load([errand.memory.take_up(errand.visit.round) for errand in errands])
        with _recorded(self._module) as logs, _no_other_randomness():
            outcome = self._take_steps(errands, optimizer, logs)
        reports = outcome.reports(logs.by_worker(len(errands)), self._finite(errands))
        for row, (errand, report) in enumerate(zip(errands, reports, strict=True)):
            if not report.failed:
                kept = optimizer.state_of(row) if errand.memory.policy == "keep" else {}
                errand.memory.put_down(kept, errand.visit.round)
        return reports

    def _take_steps(
        self, errands: Sequence[Errand], optimizer: StackedOptimizer, logs: ChunkLogs
    ) -> _Outcome:
        device, outcome = self._module.device, _Outcome(errands)
        visits = [errand.visit for errand in errands]
        batches = batches_of(
            [errand.stream for errand in errands], visits, numbered=self._numbered, device=device
        )
        streams = WorkerStreams([visit.seed or 0 for visit in visits], device) if self._draws else None
        step = BatchedStep(self._module, self._places, logs, passes_batch_idx=visits[0].passes_batch_idx)
        active = len(visits)
        for number in range(visits[0].steps):
            while visits[active - 1].steps <= number:
                active -= 1
            for batch in batches.of_step(number, active):
                rows, samples = batch.rows, logs.samples
                parameters = [stack[rows] for stack in self._stack.parameters]
                buffers = [stack[rows] for stack in self._stack.buffers]
                draws = None if streams is None else streams.of(rows)
                gradients = self._by_graph(batch, parameters, logs, visits[0])
                if gradients is None:
                    gradients = step.gradients(batch, parameters, buffers, draws)
                    if self._compiled is not None:
                        self._compiled.learn(batch, gradients, logs.calls)
                optimizer.step(rows, parameters, gradients.whole, gradients.products)
                self.draws_made += 0 if draws is None else draws.count
                outcome.note(number, rows, gradients.losses, logs.samples - samples)
        return outcome

    def _by_graph(
        self, batch: StackedBatch, parameters: Sequence[Tensor], logs: ChunkLogs, visit: Visit
    ) -> Gradients | None:
        """Take a step by a compiled graph; return ``None`` where there is none."""
        if not self._asks_for_graphs:
            return None
        if self._compiled is None:
            passes = visit.passes_batch_idx
            self._compiled = CompiledSteps(self._module, self._places, passes_batch_idx=passes)
        if not self._compiled.is_ready(batch):
            return None
        try:
            return self._compiled.gradients(batch, parameters, logs)
        except Exception as error:  # noqa: BLE001  # whatever it is: the same step uncompiled will tell
            self.why_not_compiled = in_few_words(error)
            self._asks_for_graphs, self._compiled = False, None
            return None

    def _finite(self, errands: Sequence[Errand]) -> list[bool]:
        """Tell of each worker whether it has ended with finite parameters, where that is required."""
        count = len(errands)
        if not errands[0].visit.requires_finite:
            return [True] * count
        frozen = [parameter for parameter in self._places.parameters if not parameter.requires_grad]
        norms = [torch.linalg.vector_norm(tensor.detach()).float().expand(count) for tensor in frozen]
        norms += [
            torch.linalg.vector_norm(stack[:count].flatten(1), dim=1).float()
            for stack in self._stack.parameters
        ]
        return [bool(finite) for finite in torch.stack(norms).isfinite().all(0)]


class _Outcome:
    """What the steps of a chunk come to, worker by worker.

    Args:
        errands: The visits; longer ones first.
    """

    def __init__(self, errands: Sequence[Errand]) -> None:
        self._steps = [errand.visit.steps for errand in errands]
        self._losses: Tensor | None = None
        self._samples = [0] * len(errands)

    def note(self, step: int, rows: slice, losses: Tensor, samples: int) -> None:
        """Keep what some of the workers report of a step.

        Args:
            step: Counted from 0 at the start of the visits.
            rows: Which workers.
            losses: Theirs, shape ``(workers,)``.
            samples: How many samples each has trained on.
        """
        if self._losses is None:
            self._losses = losses.new_empty(self._steps[0], len(self._steps))
        self._losses[step, rows] = losses
        for row in range(rows.start, rows.stop):
            self._samples[row] += samples

    def reports(self, logs: Sequence[tuple[LoggedValue, ...]], finite: Sequence[bool]) -> list[VisitReport]:
        """Return what each worker reports.

        Args:
            logs: What each has logged.
            finite: Whether it may be told, or has failed by not being finite.
        """
        assert self._losses is not None
        means = [
            mean
            for steps, alike in groupby(range(len(self._steps)), key=self._steps.__getitem__)
            for mean in self._losses[:steps, list(alike)].mean(0).unbind()
        ]
        return [
            VisitReport(steps, loss, logged, (), samples=samples)
            if fine
            else VisitReport(steps, None, (), (), failed=True)
            for steps, loss, logged, samples, fine in zip(
                self._steps, means, logs, self._samples, finite, strict=True
            )
        ]


@contextmanager
def _recorded(module: pl.LightningModule) -> Iterator[ChunkLogs]:
    logs = ChunkLogs(module)
    with replaced_log(module, logs.log):
        yield logs


@contextmanager
def _no_other_randomness() -> Iterator[None]:
    """Refuse steps that draw from NumPy's or Python's streams, where one draw would be for all workers."""
    python, numpy = random.getstate(), np.random.get_state()
    yield
    if random.getstate() != python or not _same(np.random.get_state(), numpy):
        random.setstate(python)
        np.random.set_state(numpy)
        raise NotBatchable("training_step draws random numbers from NumPy or Python")


def _same(state: Any, other: Any) -> bool:
    return all(np.array_equal(part, before) for part, before in zip(state, other, strict=True))
