"""What a round leaves for people and loggers: logged values, history records, summaries of workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import ceil
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch

from fedlightning.algorithms import Plan
from fedlightning.local.evaluation import count_bytes, count_labels, evaluate_locally
from fedlightning.local.logs import LoggedValue
from fedlightning.local.metrics import merge_states, metric_at, put_states, take_states
from fedlightning.strategy.federation import Member
from fedlightning.strategy.records import RoundRecord, VisitRecord, WorkerSummary
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.traffic import Traffic
from fedlightning.strategy.visit_columns import VisitColumns
from fedlightning.workers import RefusedByPolicy, Worker


def log_round(module: pl.LightningModule, result: RoundResult) -> None:
    """Log once what ``self.log`` was given at the workers, and merge the states of their torchmetrics.

    Args:
        module: The global module, inside its ``training_step`` as far as the Trainer knows.
        result: The round.
    """
    if result.metrics:
        _merge_metrics(module, result)
    log_reported(module, result.logs)


def log_time(module: pl.LightningModule, seconds: float) -> None:
    """Log how late it is on the simulated clock.

    Args:
        module: The global module, inside its ``training_step`` as far as the Trainer knows.
        seconds: Since the run began, the round included.
    """
    pl.LightningModule.log(module, "simulated_seconds", seconds, on_step=True, on_epoch=False, batch_size=1)


def log_reported(module: pl.LightningModule, logs: Iterable[LoggedValue]) -> None:
    """Log in the Trainer what was logged at workers; states of torchmetrics are merged by then."""
    # A module's own ``log`` has been called at the worker already.
    log = partial(pl.LightningModule.log, module)
    for logged in logs:
        if logged.metric is not None:
            log(logged.name, metric_at(module, logged.metric), **logged.settings)
        elif logged.value is not None:
            log(
                logged.name,
                logged.value,
                reduce_fx=logged.reduction,
                batch_size=logged.weight,
                **logged.settings,
            )


def _merge_metrics(module: pl.LightningModule, result: RoundResult) -> None:
    before = take_states(module)
    of_round = merge_states(module, result.metrics)
    put_states(module, of_round)
    # What Lightning logs per step is the value of the last forward: here, of the whole round.
    per_step = {
        logged.metric: metric_at(module, logged.metric).compute()
        for logged in result.logs
        if logged.metric and logged.settings.get("on_step") is not False
    }
    put_states(module, merge_states(module, [before, of_round]))
    for path, value in per_step.items():
        metric_at(module, path)._forward_cache = value


def record_of(plan: Plan, result: RoundResult, chosen_by: Traffic) -> RoundRecord:
    """Return the record of a completed round.

    Args:
        plan: Who was to take part.
        result: What came of it.
        chosen_by: What was moved to find out who takes part.
    """
    visits = result.visits
    if isinstance(visits, VisitColumns):
        steps, up, down = (int(n.sum()) for n in (visits.steps, visits.bytes_up, visits.bytes_down))
        spread = spread_of_columns(visits.in_common())
        workers = visits.workers
    else:
        steps = sum(visit.steps for visit in visits)
        up, down = sum(visit.bytes_up for visit in visits), sum(visit.bytes_down for visit in visits)
        spread = spread_of(metrics_or_losses(visits))
        workers = tuple(worker for worker in plan.workers if worker not in result.skipped)
    return RoundRecord(
        round=plan.round,
        workers=workers,
        steps=steps,
        loss=None if result.loss is None else float(result.loss),
        metrics={logged.name: float(logged.value) for logged in result.logs if logged.value is not None},
        bytes_up=chosen_by.up + up,
        bytes_down=chosen_by.down + down,
        spread=spread,
        skipped={**plan.absent, **result.skipped},
        simulated_seconds=duration_of(plan, result),
    )


def duration_of(plan: Plan, result: RoundResult) -> float | None:
    """Return how long a round took by the simulated clock: its slowest visit's time, unless it was closed.

    Args:
        plan: Who was to take part.
        result: What came of it.
    """
    if plan.closes is not None:
        return plan.closes
    if isinstance(result.visits, VisitColumns):  # there is no clock then
        return None
    seconds = (visit.simulated_seconds for visit in result.visits)
    return max((taken for taken in seconds if taken is not None), default=None)


def spread_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return how each metric differs over workers: what the worst have, and how far they are from the others.

    Args:
        rows: The metrics at each worker; all count alike, since the question is how the worst fare.

    Returns:
        For each metric that every worker has: ``<metric>_min``, ``_p10`` (10th percentile), ``_median``,
        ``_std`` (of the population), ``_low10`` and ``_high10`` (means of the lowest and the highest tenth,
        rounded up: of an accuracy the worst decile is the lowest, of a loss the highest) and ``_gap`` (from
        the lowest to the highest). Empty for fewer than two workers.
    """
    if len(rows) < 2:
        return {}
    names = [name for name in rows[0] if all(name in row for row in rows)]
    if not names:
        return {}
    return spread_of_columns({name: np.array([row[name] for row in rows]) for name in names})


def spread_of_columns(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """Return the same of metrics that come in columns.

    Args:
        columns: For each metric its values, shape ``(workers,)``.
    """
    names = list(columns)
    if not names or len(columns[names[0]]) < 2:
        return {}
    # One table, one call each: torch.quantile takes longer to start than to work.
    table = torch.from_numpy(np.stack([columns[name] for name in names], axis=1)).sort(dim=0).values
    tenth = ceil(len(table) / 10)
    p10, median = table.quantile(torch.tensor([0.1, 0.5], dtype=table.dtype), dim=0)
    spread = {
        "min": table[0],
        "p10": p10,
        "median": median,
        "std": table.std(0, correction=0),
        "low10": table[:tenth].mean(0),
        "high10": table[-tenth:].mean(0),
        "gap": table[-1] - table[0],
    }
    numbers_of = {kind: column.tolist() for kind, column in spread.items()}
    return {
        f"{name}_{kind}": numbers[index]
        for index, name in enumerate(names)
        for kind, numbers in numbers_of.items()
    }


def metrics_or_losses(visits: Sequence[VisitRecord]) -> list[Mapping[str, float]]:
    """Return what each visit of a round logged, or the losses where nobody logged anything.

    Args:
        visits: The visits.
    """
    # A metric may be called "loss", too: what some have logged and what others have not are not one thing.
    if any(visit.metrics for visit in visits):
        return [visit.metrics for visit in visits]
    return [{} if visit.loss is None else {"loss": visit.loss} for visit in visits]


def describe(member: Member) -> WorkerSummary:
    """Return what a worker holds; its labels are counted there, and left out where they may not leave."""
    worker = member.worker
    return WorkerSummary(
        worker=worker.id,
        samples=member.samples,
        label_counts=_label_counts(member),
        metrics={},
        sent_bytes=worker.ledger.sent_bytes,
        received_bytes=worker.ledger.received_bytes,
        data_bytes=worker.run(count_bytes, member.shard),
    )


def _label_counts(member: Member) -> Mapping[int, int]:
    try:
        counts: Counter[int] | None = member.worker.run(count_labels, member.shard)
    except RefusedByPolicy:  # the rest of the summary is not private
        return {}
    return counts or {}


def evaluate_at(
    member: Member, module: pl.LightningModule, personalise: Callable[[Worker, Any], Any]
) -> dict[str, float]:
    """Return what ``validation_step`` logs on a worker's own data, of the module that the worker would use.

    Args:
        member: The worker.
        module: The global module.
        personalise: Returns a pointer to the worker's own version of it, or ``None``.
    """
    worker = member.worker
    pointer = worker.send(module)
    try:
        personal = personalise(worker, pointer)
        metrics: dict[str, float] = worker.run(evaluate_locally, pointer, member.shard, personal)
    finally:
        worker.get(pointer)
    return metrics
