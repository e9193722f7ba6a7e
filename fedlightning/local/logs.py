"""``self.log`` at a worker: values are recorded there and combined; the strategy logs them once per round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from fedlightning.local.known import known
from fedlightning.local.lightning_calls import replaced_log
from fedlightning.local.series import Series, snapshot
from fedlightning.workers.remote import record

Asked: TypeAlias = tuple[Any, ...]
"""The arguments of a call of ``self.log`` but for name, value and batch size."""

_REDUCTIONS: dict[Callable[..., Any], str] = {
    torch.mean: "mean",
    torch.sum: "sum",
    torch.max: "max",
    torch.min: "min",
    max: "max",
    min: "min",
    sum: "sum",
}


@record
@dataclass(frozen=True)
class LoggedValue:
    """One name given to ``self.log``, over some steps and workers.

    Args:
        name: The name it was logged under.
        value: Combined value, shape ``()``; ``None`` for a torchmetric, whose state is merged instead.
        metric: Path of the torchmetric inside the module, e.g. ``"train_accuracy"``; else ``None``.
        weight: Number of samples behind the value.
        reduction: How values are combined: ``"mean"`` (by samples), ``"sum"``, ``"max"`` or ``"min"``.
        settings: The other arguments of ``self.log``.
    """

    name: str
    value: Tensor | None
    metric: str | None
    weight: int
    reduction: str
    settings: Mapping[str, Any]


def combine_logs(reports: Iterable[Iterable[LoggedValue]]) -> tuple[LoggedValue, ...]:
    """Combine what several workers logged, name by name, in the order in which they are given."""
    by_name: dict[str, list[LoggedValue]] = {}
    for report in reports:
        for logged in report:
            by_name.setdefault(logged.name, []).append(logged)
    return tuple(_combined(several) for several in by_name.values())


def _combined(several: Sequence[LoggedValue]) -> LoggedValue:
    last = several[-1]
    if len(several) == 1:
        return last
    series = Series(last.reduction)
    for logged in several:
        if logged.value is not None:
            series.add(snapshot(logged.value), logged.weight)
    value = None if last.value is None else series.combined(last.value.dtype)
    return replace(last, value=value, weight=sum(logged.weight for logged in several))


class LogRecorder:
    """Stand in for ``LightningModule.log`` during a visit.

    Args:
        module: The module whose ``self.log`` calls are recorded.

    Attributes:
        module: The module.
        samples: Samples in the batches so far, as far as these tell.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        self.module = module
        self._logs: dict[str, Log] = {}
        self._batch: Any = None
        self._batch_size: int | None = None
        self.samples = 0

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Record afresh within the block, and go on after as if nothing had been."""
        kept = self._logs, self._batch, self._batch_size, self.samples
        self._logs, self.samples = {}, 0
        try:
            yield
        finally:
            self._logs, self._batch, self._batch_size, self.samples = kept

    @property
    def values(self) -> tuple[LoggedValue, ...]:
        """What was logged so far, combined over the steps."""
        return tuple(log.combined(name) for name, log in self._logs.items())

    def start_step(self, batch: Any) -> None:
        """Note the batch of the coming step, from which batch sizes are inferred."""
        self._batch = batch
        self._batch_size = _rows_of(batch) or None
        self.samples += self._batch_size or _first_rows_of(batch)

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        *,
        batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        """Record a value, with the signature and meaning of ``LightningModule.log``.

        Raises:
            ValueError: The value is not a single number, or ``reduce_fx`` cannot be applied over workers.
        """
        asked = (prog_bar, logger, on_step, on_epoch, reduce_fx, settings)
        metric = value if type(value) is not Tensor and isinstance(value, Metric) else None
        log = self._logs.get(name)
        # Most calls are like the one before: then nothing but the value has to be looked at.
        if log is None or log.asked != asked or log.source is not metric:
            log = self._logs[name] = self._opened(name, value, asked, metric)
        if metric is None:
            size = batch_size if batch_size is not None else self._inferred_batch_size(bool(on_epoch))
            self._note(log, name, value, size)
        else:
            self._note_metric(log)

    def _note(self, log: Log, name: str, value: Any, weight: int) -> None:
        """Keep a value that is logged now."""
        log.series.add(scalar(name, value), weight)

    def _note_metric(self, log: Log) -> None:
        """Take note of a torchmetric that is logged now: its state is looked at when the visit ends."""

    def _series(self, name: str, reduction: str) -> Series:
        """Return where a name's values go on, with those that it has."""
        before = self._logs.get(name)
        series = Series(reduction) if before is None else before.series
        series.reduction = reduction
        return series

    def _opened(self, name: str, value: Any, asked: Asked, metric: Metric | None) -> Log:
        """Return the account of a name, with what was logged under it before; the last settings count."""
        prog_bar, logger, on_step, on_epoch, reduce_fx, settings = asked
        flags = {"prog_bar": prog_bar, "logger": logger, "on_step": on_step, "on_epoch": on_epoch}
        reduction = _reduction(name, reduce_fx) if metric is None else "mean"
        path = None if metric is None else self._path_of(name, metric)
        series = self._series(name, reduction)
        return Log(asked, {**flags, **settings}, series, dtype_of(value), metric, path)

    def _path_of(self, name: str, metric: Metric) -> str:
        path = next((path for path, child in known(self.module).metrics if child is metric), "")
        if not path:
            raise ValueError(
                f"self.log({name!r}, ...) got a {type(metric).__name__} that is no attribute of the module. "
                "Assign it in __init__ (self.metric = ...), so that its state can be found and merged."
            )
        return path

    def _inferred_batch_size(self, needed: bool) -> int:
        if self._batch_size is None:
            try:
                self._batch_size = extract_batch_size(self._batch)
            except MisconfigurationException:
                # Lightning asks for a batch size only where it averages over an epoch.
                if needed:
                    raise
                self._batch_size = 1
        return self._batch_size


@dataclass(frozen=True, slots=True)
class Log:
    """What was logged under one name, with the settings of the last call."""

    asked: Asked
    settings: Mapping[str, Any]
    series: Series
    dtype: torch.dtype
    source: Metric | None
    metric: str | None

    def combined(self, name: str) -> LoggedValue:
        """Return what was logged, as one value."""
        series = self.series
        value = series.combined(self.dtype) if self.source is None else None
        return LoggedValue(name, value, self.metric, series.weight, series.reduction, self.settings)


@contextmanager
def recorded_logs(module: pl.LightningModule) -> Iterator[LogRecorder]:
    """Record ``module.log`` within the block, and restore it after.

    What reaches ``LightningModule.log`` is recorded: a module that overrides the method has its own called
    first, as in any Trainer. Within another such block of the same module, the outer one does not notice.
    """
    outer = _recording.get()
    if outer is not None and outer.module is module:
        with outer.emptied():
            yield outer
        return
    recorder = LogRecorder(module)
    with recorded_by(recorder):
        yield recorder


@contextmanager
def recorded_by(recorder: LogRecorder) -> Iterator[None]:
    """Let a recorder stand in for its module's ``log`` within the block.

    Args:
        recorder: The recorder.
    """
    token = _recording.set(recorder)
    try:
        with replaced_log(recorder.module, recorder.log):
            yield
    finally:
        _recording.reset(token)


_recording: ContextVar[LogRecorder | None] = ContextVar("recording", default=None)


def _reduction(name: str, reduce_fx: str | Callable[..., Any]) -> str:
    named = reduce_fx if isinstance(reduce_fx, str) else _REDUCTIONS.get(reduce_fx, "")
    reduction = str(named).lower().replace("avg", "mean")
    if reduction not in {"mean", "sum", "max", "min"}:
        raise ValueError(
            f"self.log({name!r}, reduce_fx={reduce_fx!r}) cannot be combined over workers: "
            "expected 'mean', 'sum', 'max' or 'min'. Log a torchmetric for anything else."
        )
    return reduction


def scalar(name: str, value: Any) -> float | Tensor:
    """Return what is recorded of a logged value.

    Raises:
        ValueError: It is not a single number.
    """
    if isinstance(value, int | float):
        return float(value)
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
    if tensor.numel() == 1:
        return snapshot(tensor)
    raise ValueError(
        f"self.log({name!r}, ...) takes a single number, got a tensor of shape {tuple(tensor.shape)}; "
        "reduce it first, e.g. with .mean()."
    )


def _rows_of(batch: Any) -> int:
    """Return the batch size where it is plain to see, else 0."""
    if type(batch) is not list:
        return 0
    size = 0
    for part in batch:
        if type(part) is not Tensor or part.dim() == 0:
            return 0
        rows = part.shape[0]
        if size not in (0, rows):
            return 0
        size = rows
    return size


def _first_rows_of(batch: Any) -> int:
    """Return the first dimension of a batch's first tensor, else 0; unlike Lightning, without a warning."""
    tensors = (part for part in tree_leaves(batch) if isinstance(part, Tensor) and part.dim() > 0)
    first = next(tensors, None)
    return 0 if first is None else len(first)


def dtype_of(value: Any) -> torch.dtype:
    """Return the type in which a logged value is reported."""
    floating = isinstance(value, Tensor) and value.is_floating_point()
    dtype: torch.dtype = value.dtype if floating else torch.get_default_dtype()
    return dtype
