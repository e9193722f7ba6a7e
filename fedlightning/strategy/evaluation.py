"""Validation, test and prediction where the data is: Lightning's evaluation loops over batches at workers.

One batch of the loop is one batch at one worker, so that ``limit_val_batches`` and callbacks mean what they
mean elsewhere. The loop sees tickets; what happens at the worker lives in ``local.batch_evaluation``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl

from fedlightning.data import FederatedDataLoader
from fedlightning.data.order import count_batches
from fedlightning.local.batch_evaluation import (
    EvaluationReport,
    EvaluationStep,
    EvaluationVisit,
    evaluate_batch,
    open_reader,
    predict_batch,
)
from fedlightning.local.failures import LocalStepFailed
from fedlightning.local.logs import combine_logs
from fedlightning.local.metrics import merge_states, metric_at, put_states, take_states
from fedlightning.strategy.errors import EvaluationFailed
from fedlightning.strategy.records import EvaluatedWorker
from fedlightning.strategy.reporting import log_reported
from fedlightning.workers import RemoteError, Worker
from fedlightning.workers.random import derive_seed

Personalise = Callable[[Worker, Any], Any]


@dataclass(frozen=True)
class Place:
    """One worker's part of a loader.

    Args:
        worker: The worker.
        reader: Pointer to what reads its batches.
        samples: Number of its samples.
        batches: Number of its batches.
    """

    worker: Worker
    reader: Any
    samples: int
    batches: int


class Ticket:
    """A batch at a worker, as Lightning's evaluation loops see it: names and numbers, no data.

    Args:
        place: Where the batch lies.
        number: Its number there.
    """

    # Not a dataclass: Lightning's precision plugins take every dataclass apart that a loader yields.
    __slots__ = ("number", "place")

    def __init__(self, place: Place, number: int) -> None:
        self.place = place
        self.number = number

    @property
    def is_last(self) -> bool:
        """Whether it is the last batch at its worker."""
        return self.number == self.place.batches - 1

    def __repr__(self) -> str:
        return f"Ticket(worker={self.place.worker.id!r}, batch={self.number})"


class EvaluationLoader:
    """Yield a ticket for each batch of a `FederatedDataLoader`, worker after worker, by name.

    Args:
        source: The user's loader, whose data lies at workers.
        seed: Seed of the order, where it shuffles.
    """

    def __init__(self, source: FederatedDataLoader, seed: int) -> None:
        self.dataset = source.dataset
        self.batch_size = source.batch_size
        self.sampler = None
        self._places: list[Place] = []
        # Sums of floating-point numbers depend on their order, which is not to depend on that of a list.
        for placement in sorted(source.placements(), key=lambda placement: placement.worker.id):
            worker, shard = placement.worker, placement.as_shard()
            reader = worker.start(open_reader, shard, seed=seed, worker=worker.id)
            batches = count_batches(
                placement.num_samples, placement.settings.batch_size, placement.settings.drop_last
            )
            self._places.append(Place(worker, reader, placement.num_samples, batches))

    def __len__(self) -> int:
        return sum(place.batches for place in self._places)

    def __iter__(self) -> Iterator[Ticket]:
        return (Ticket(place, number) for place in self._places for number in range(place.batches))


@dataclass(frozen=True)
class WorkerEvaluation:
    """What an evaluation gave at one worker.

    Args:
        worker: Name of the worker.
        samples: Number of its samples, in the loader that was evaluated.
        metrics: Everything that was logged, over the worker's own data alone.
        personal: Whether a model of the worker's own was evaluated, instead of the global one.
    """

    worker: str
    samples: int
    metrics: dict[str, float]
    personal: bool = False


class EvaluationAtWorkers:
    """Carry out the tickets of Lightning's evaluation loops with the global module.

    The module is sent to a worker when its first batch comes up, and is gone from there after its last.

    Args:
        seed: Seed of the run, for steps that draw random numbers.
        personalise: Makes a worker's own version of a module that was sent there, given worker and pointer,
            and returns a pointer to it; ``None`` where the worker has none.

    Attributes:
        by_worker: The last evaluation at each worker, by step and number of the loader.
    """

    def __init__(self, seed: int, personalise: Personalise | None = None) -> None:
        self.seed = seed
        self._personalise = personalise
        self._personal: Any = None
        self.by_worker: dict[tuple[EvaluationStep, int], list[WorkerEvaluation]] = {}
        self._pointer: Any = None
        self._place: Place | None = None
        self._reports: list[EvaluationReport] = []

    def evaluate(
        self, step: EvaluationStep, module: pl.LightningModule, ticket: Ticket, arguments: Sequence[int]
    ) -> None:
        """Validate or test on a batch at its worker, and log here what was logged there.

        Args:
            step: Which of the module's steps.
            module: The global module, in evaluation mode.
            ticket: Which batch.
            arguments: What the step takes after the batch.

        Raises:
            EvaluationFailed: The user's code raised at the worker.
        """
        worker, visit = ticket.place.worker, self._visit(step, ticket, arguments)
        with self._at_worker(module, ticket, step) as pointer:
            report: EvaluationReport = worker.run(
                evaluate_batch, pointer, ticket.place.reader, visit, self._personal
            )
            personal = self._personal is not None
        self._reports.append(report)
        put_states(module, merge_states(module, [take_states(module), report.metrics]))
        log_reported(module, report.logs)
        if ticket.is_last:
            rows = self.by_worker.setdefault((step, visit.dataloader_idx), [])
            rows.append(self._conclude(ticket.place, module, personal))

    def predict(self, module: pl.LightningModule, ticket: Ticket, arguments: Sequence[int]) -> Any:
        """Predict for a batch at its worker, and leave the prediction there.

        Args:
            module: The global module, in evaluation mode.
            ticket: Which batch.
            arguments: What the step takes after the batch.

        Returns:
            A pointer to the prediction.

        Raises:
            EvaluationFailed: The user's code raised at the worker.
        """
        visit = self._visit("predict_step", ticket, arguments)
        with self._at_worker(module, ticket, "predict_step") as pointer:
            worker, reader = ticket.place.worker, ticket.place.reader
            return worker.start(predict_batch, pointer, reader, visit, self._personal)

    def begin(self, step: EvaluationStep) -> None:
        """Forget what the last run of this step gave."""
        self.by_worker = {key: rows for key, rows in self.by_worker.items() if key[0] != step}
        self.end()

    def end(self) -> None:
        """Leave no module at a worker, as a loop would that stops short of the worker's last batch."""
        self._place, self._pointer, self._personal, self._reports = None, None, None, []

    def workers_by_loader(
        self, step: EvaluationStep, rounds: int, names: Collection[str]
    ) -> list[list[EvaluatedWorker]]:
        """Return the last evaluation for the history: of each loader of federated data, its workers.

        Args:
            step: Which of the module's steps.
            rounds: Rounds trained before it.
            names: The metrics of the Trainer, which names the loader where there are several.
        """

        def named(name: str, loader: int) -> str:
            return name if name in names else f"{name}/dataloader_idx_{loader}"

        return [
            [
                EvaluatedWorker(
                    rounds,
                    row.worker,
                    row.samples,
                    row.personal,
                    {named(name, loader): value for name, value in row.metrics.items()},
                )
                for row in rows
            ]
            for (done, loader), rows in sorted(self.by_worker.items())
            if done == step
        ]

    def _visit(self, step: EvaluationStep, ticket: Ticket, arguments: Sequence[int]) -> EvaluationVisit:
        return EvaluationVisit(
            step=step,
            number=ticket.number,
            arguments=tuple(arguments),
            seed=derive_seed(self.seed, step, ticket.place.worker.id, ticket.number),
            dataloader_idx=arguments[1] if len(arguments) > 1 else 0,
        )

    @contextmanager
    def _at_worker(self, module: pl.LightningModule, ticket: Ticket, step: EvaluationStep) -> Iterator[Any]:
        """Have the module at the worker of a ticket, and name both where something is raised there."""
        if self._pointer is None or self._place is not ticket.place:
            self.end()
            self._place, self._pointer = ticket.place, ticket.place.worker.send(module)
        try:
            if self._personalise is not None and (ticket.number == 0 or self._personal is None):
                self._personal = self._personalise(ticket.place.worker, self._pointer)
            yield self._pointer
        except RemoteError as error:
            failure = error.__cause__ or error
            original = failure.__cause__ if isinstance(failure, LocalStepFailed) else failure
            reason = original or failure
            raise EvaluationFailed(ticket.place.worker.id, step, ticket.number, reason) from original
        finally:
            if ticket.is_last:
                self._pointer = self._personal = None

    def _conclude(self, place: Place, module: pl.LightningModule, personal: bool) -> WorkerEvaluation:
        """Return the values of the worker whose last batch has been evaluated."""
        overall = take_states(module)
        put_states(module, merge_states(module, [report.metrics for report in self._reports]))
        values = {
            logged.name: metric_at(module, logged.metric).compute() if logged.metric else logged.value
            for logged in combine_logs(report.logs for report in self._reports)
        }
        put_states(module, overall)
        single = {name: value for name, value in values.items() if value is not None and value.numel() == 1}
        return WorkerEvaluation(
            place.worker.id,
            place.samples,
            {name: float(value) for name, value in single.items()},
            personal,
        )
