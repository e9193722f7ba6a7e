"""Gather what a report says, out of a Trainer and its federation. How it is drawn and set is for others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from importlib.metadata import version
from platform import platform, python_version
from typing import Any, TypeAlias

import lightning as L

from fedlightning import __version__
from fedlightning.callbacks.federation import evaluated_workers
from fedlightning.callbacks.fingerprints import take_fingerprint
from fedlightning.callbacks.layout import TextTable, end_table
from fedlightning.strategy import FederatedStrategy, History, WorkerSummary
from fedlightning.strategy.wording import counted, human_bytes
from fedlightning.workers import Worker
from fedlightning.workers.payload import payload_bytes

Facts: TypeAlias = Mapping[str, str]

_SHOWN_SKIPS = 50
_PACKAGES = ("torch", "lightning", "torchmetrics", "numpy")


@dataclass(frozen=True)
class Contents:
    """Everything that a report says.

    Args:
        title: What stands on top.
        began: When the run began.
        took: How long it lasted.
        headline: The few numbers that are read first, by what they are.
        workers: What the workers hold, and how the module does there.
        federation: The same, as a table.
        history: Rounds, visits and evaluations.
        left_out: The workers whose update was skipped, round by round; None where all took part.
        ledger: What passed the workers' doors, summed over workers and rounds.
        configuration: Settings, by what they are settings of.
        fingerprint: SHA-256 of the module.
        versions: Of everything that takes part.
    """

    title: str
    began: datetime
    took: timedelta
    headline: Facts
    workers: Sequence[WorkerSummary]
    federation: TextTable
    history: History
    left_out: TextTable | None
    ledger: TextTable
    configuration: Mapping[str, Facts]
    fingerprint: str
    versions: Facts


def gather(
    trainer: L.Trainer,
    module: L.LightningModule,
    federation: FederatedStrategy,
    *,
    title: str,
    began: datetime,
    max_workers: int,
) -> Contents:
    """Collect the contents at the end of a fit; evaluates the module at every worker.

    Args:
        trainer: The Trainer.
        module: The global module.
        federation: The Trainer's strategy.
        title: What stands on top.
        began: When the run began.
        max_workers: Of more workers, quantiles are shown instead of a row each.
    """
    workers = evaluated_workers(federation, module)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Contents(
        title=title,
        began=began,
        took=datetime.now() - began,
        headline=_headline(federation.history, workers),
        workers=workers,
        federation=end_table(workers, metrics, max_workers),
        history=federation.history,
        left_out=_left_out(federation.history),
        ledger=summed_ledger(member.worker for member in federation.federation.members.made().values()),
        configuration={
            "Strategy": _settings(federation),
            "Trainer": _trainer(trainer),
            "Module": _module(module),
            "Data": _data(trainer),
        },
        fingerprint=take_fingerprint(module, len(federation.history)).module,
        versions=_versions(),
    )


def summed_ledger(workers: Iterable[Worker]) -> TextTable:
    """Sum the accounts of several workers over workers and rounds, alike entries together.

    Args:
        workers: The workers.

    Returns:
        One row per direction, kind, item and rule; the largest first.
    """
    sums: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    for worker in workers:
        for entry, (times, nbytes) in worker.ledger.entries.items():
            key = (entry.direction, entry.kind, entry.item, entry.rule)
            before = sums.get(key, (0, 0))
            sums[key] = (before[0] + times, before[1] + nbytes)
    largest = sorted(sums.items(), key=lambda item: -item[1][1])
    rows = tuple(
        (direction, kind, item, f"{times:,}", human_bytes(nbytes), rule)
        for (direction, kind, item, rule), (times, nbytes) in largest
    )
    totals = (f"{sum(times for times, _ in sums.values()):,}", human_bytes(sum(n for _, n in sums.values())))
    head = ("direction", "kind", "item", "times", "bytes", "rule")
    return TextTable(head, rows, ("all", "", "", *totals, ""))


def _left_out(history: History) -> TextTable | None:
    rows = tuple(
        (str(record.round), worker, reason) for record in history for worker, reason in record.skipped.items()
    )
    if not rows:
        return None
    foot = ("all", counted(len(rows), "visit"), "")
    return TextTable(("round", "worker", "reason"), rows[:_SHOWN_SKIPS], foot)


def _headline(history: History, workers: Sequence[WorkerSummary]) -> Facts:
    last = history.evaluations[-1].metrics if history.evaluations else {}
    moved = sum(record.bytes_up + record.bytes_down for record in history)
    return {
        **{name: f"{value:.4g}" for name, value in sorted(last.items())},
        "rounds": f"{len(history):,}",
        "workers": f"{len(workers):,}",
        "samples": f"{sum(worker.samples for worker in workers):,}",
        "moved": human_bytes(moved),
    }


def _settings(federation: FederatedStrategy) -> Facts:
    settings = federation.settings
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: _written(value) for name, value in values.items() if value is not None}


def _trainer(trainer: L.Trainer) -> Facts:
    names = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val")
    values = {name: getattr(trainer, name, None) for name in names}
    facts = {name: _written(value) for name, value in values.items() if value not in (None, -1)}
    optimizers = {f"optimizer {n}": _optimizer(o) for n, o in enumerate(trainer.optimizers)}
    return facts | ({"optimizer": optimizers["optimizer 0"]} if len(optimizers) == 1 else optimizers)


def _optimizer(optimizer: Any) -> str:
    settings = {name: value for name, value in optimizer.defaults.items() if value}
    return f"{type(optimizer).__name__}({', '.join(f'{name}={value}' for name, value in settings.items())})"


def _module(module: L.LightningModule) -> Facts:
    parameters = counted(sum(parameter.numel() for parameter in module.parameters()), "parameter")
    size = f"{parameters}, {human_bytes(payload_bytes(module))} with buffers"
    return {"class": type(module).__qualname__, "size": size, **_hparams(module)}


def _data(trainer: L.Trainer) -> Facts:
    source = getattr(trainer, "datamodule", None)
    if source is not None:
        return {"class": type(source).__qualname__, **_hparams(source)}
    loader: Any = trainer.train_dataloader
    return {"dataset": type(loader.dataset).__qualname__, "batch_size": _written(loader.batch_size)}


def _hparams(owner: Any) -> Facts:
    return {str(name): _written(value) for name, value in owner.hparams.items()}


def _written(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _versions() -> Facts:
    return {
        "fedlightning": __version__,
        **{name: version(name) for name in _PACKAGES},
        "python": python_version(),
        "system": platform(),
    }
