"""``self.log`` at a worker: values are recorded there and combined; the strategy logs them once per round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor
from torchmetrics import Metric

from fedlightning.workers.remote import record

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

    def combined_with(self, other: LoggedValue) -> LoggedValue:
        """Return both as one value: a mean by samples, or the sum, maximum or minimum."""
        if self.value is None or other.value is None:
            return replace(other, weight=self.weight + other.weight)
        weight = self.weight + other.weight
        first, second = _accumulated(self.value), _accumulated(other.value)
        match self.reduction:
            case "sum":
                value = first + second
            case "max":
                value = torch.maximum(first, second)
            case "min":
                value = torch.minimum(first, second)
            case _:
                value = first + (second - first) * (other.weight / weight)
        return replace(other, value=value, weight=weight)


def combine_logs(reports: Iterable[Iterable[LoggedValue]]) -> tuple[LoggedValue, ...]:
    """Combine what several workers logged, name by name, in the order in which they are given."""
    combined: dict[str, LoggedValue] = {}
    for report in reports:
        for logged in report:
            before = combined.get(logged.name)
            combined[logged.name] = logged if before is None else before.combined_with(logged)
    return tuple(combined.values())


class LogRecorder:
    """Stand in for ``LightningModule.log`` during a visit.

    Args:
        module: The module whose ``self.log`` calls are recorded.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        self._metric_paths: dict[int, str] = {
            id(child): path for path, child in module.named_modules() if path
        }
        self._device = module.device
        self._values: dict[str, LoggedValue] = {}
        self._batch: Any = None
        self._batch_size: int | None = None

    @property
    def values(self) -> tuple[LoggedValue, ...]:
        """What was logged so far, combined over the steps."""
        return tuple(self._values.values())

    def start_step(self, batch: Any) -> None:
        """Note the batch of the coming step, from which batch sizes are inferred."""
        self._batch = batch
        self._batch_size = None

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
        settings |= {"prog_bar": prog_bar, "logger": logger, "on_step": on_step, "on_epoch": on_epoch}
        if isinstance(value, Metric):
            logged = LoggedValue(name, None, self._path_of(name, value), 0, "mean", settings)
        else:
            reduction = _reduction(name, reduce_fx)
            size = batch_size if batch_size is not None else self._inferred_batch_size(bool(on_epoch))
            logged = LoggedValue(name, _scalar(name, value, self._device), None, size, reduction, settings)
        before = self._values.get(name)
        self._values[name] = logged if before is None else before.combined_with(logged)

    def _path_of(self, name: str, metric: Metric) -> str:
        path = self._metric_paths.get(id(metric))
        if path is None:
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


@contextmanager
def recorded_logs(module: pl.LightningModule) -> Iterator[LogRecorder]:
    """Record ``module.log`` within the block, and restore it after."""
    recorder = LogRecorder(module)
    # On the instance: classes stay as they are, and log_dict finds it, too.
    module.__dict__["log"] = recorder.log
    try:
        yield recorder
    finally:
        del module.__dict__["log"]


def _reduction(name: str, reduce_fx: str | Callable[..., Any]) -> str:
    named = reduce_fx if isinstance(reduce_fx, str) else _REDUCTIONS.get(reduce_fx, "")
    reduction = str(named).lower().replace("avg", "mean")
    if reduction not in {"mean", "sum", "max", "min"}:
        raise ValueError(
            f"self.log({name!r}, reduce_fx={reduce_fx!r}) cannot be combined over workers: "
            "expected 'mean', 'sum', 'max' or 'min'. Log a torchmetric for anything else."
        )
    return reduction


def _accumulated(value: Tensor) -> Tensor:
    # Over many steps, half precision would round the later ones away.
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _scalar(name: str, value: Any, device: torch.device) -> Tensor:
    # A number, a count or a flag gets the default dtype, as it does in Lightning; a tensor is copied, because
    # the caller may change it in place before the round is over.
    if isinstance(value, Tensor):
        dtype = value.dtype if value.is_floating_point() else torch.get_default_dtype()
        tensor = value.detach().to(dtype, copy=True)
    else:
        tensor = torch.tensor(value, dtype=torch.get_default_dtype(), device=device)
    if tensor.numel() != 1:
        raise ValueError(
            f"self.log({name!r}, ...) takes a single number, got a tensor of shape {tuple(tensor.shape)}; "
            "reduce it first, e.g. with .mean()."
        )
    return tensor.squeeze()
