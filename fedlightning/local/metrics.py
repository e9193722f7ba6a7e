"""torchmetrics over workers: states are taken, merged by each state's own reduction, and put back.

Averaging metric *values* over workers is wrong (by up to 0.9 for uneven shards); merging states is exact.
``Metric.merge_state`` refuses metrics with ``full_state_update`` and reorders lists, so the merging is
done here, over torchmetrics' ``_defaults`` and ``_reductions``, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import (
    dim_zero_cat,
    dim_zero_max,
    dim_zero_mean,
    dim_zero_min,
    dim_zero_sum,
)
from torchmetrics.wrappers import Running

from fedlightning.local.known import known
from fedlightning.workers.remote import accompany_modules, record
from fedlightning.workers.samples import kept_samples

StateValue = Tensor | list[Tensor]


@record
@dataclass(frozen=True)
class MetricState:
    """What one torchmetric has accumulated.

    Args:
        path: The metric's path inside the module.
        updates: How often it was updated.
        values: Its states by name; a list state (kept per sample by metrics such as AUROC without
            ``thresholds``) as a list of tensors.
    """

    path: str
    updates: int
    values: dict[str, StateValue]


def samples_kept_by(states: Iterable[MetricState]) -> str:
    """Say which metrics have kept values per sample, and what to do about it; nothing if none has."""
    return _advice(state.path for state in states if any(map(_is_filled_list, state.values.values())))


@kept_samples.register
def _(value: nn.Module) -> str:
    return _advice(
        path
        for path, metric in value.named_modules()
        if isinstance(metric, Metric)
        and any(_is_filled_list(getattr(metric, name)) for name in metric._defaults)
    )


def metrics_of(module: nn.Module) -> Iterator[tuple[str, Metric]]:
    """Yield the torchmetrics inside ``module`` with their paths, each with a state of its own."""
    for collection in known(module).collections:
        # Metrics of one compute group share their state until they are asked for copies.
        list(collection.values(copy_state=True))
    yield from known(module).metrics


def take_states(module: nn.Module) -> tuple[MetricState, ...]:
    """Return a copy of the state of every torchmetric that was updated since its last reset."""
    return tuple(
        MetricState(
            path, metric._update_count, {name: _copy(getattr(metric, name)) for name in metric._defaults}
        )
        for path, metric in metrics_of(module)
        if metric._update_count > 0
    )


def report_states(module: nn.Module) -> tuple[MetricState, ...]:
    """Return the states that are to be merged with those of other workers.

    Raises:
        ValueError: A metric looks at the last updates only, which nobody can tell over several workers.
    """
    for path, metric in metrics_of(module):
        if isinstance(metric, Running) and metric._num_vals_seen > 0:
            raise ValueError(
                f"{path} is a {type(metric).__name__} over the last {metric.window} updates, and those of "
                "several workers come in no order. Use the metric without its window (MeanMetric for "
                "RunningMean), which is merged exactly, or compute it in validation."
            )
    return take_states(module)


def metric_at(module: nn.Module, path: str) -> Metric:
    """Return the torchmetric at ``path`` inside ``module``."""
    metric = module.get_submodule(path)
    assert isinstance(metric, Metric)
    return metric


def reset_metrics(module: nn.Module) -> None:
    """Empty every torchmetric inside ``module``."""
    for _, metric in metrics_of(module):
        # A reset costs more than a step of a small module, and most metrics count in validation only.
        if metric._update_count or any(metric._persistent.values()):
            metric.reset()


def are_updated(module: nn.Module) -> bool:
    """Tell whether any torchmetric of ``module`` was updated since its last reset."""
    return any(metric._update_count for _, metric in known(module).metrics)


def put_states(module: nn.Module, states: Iterable[MetricState]) -> None:
    """Give the torchmetrics of ``module`` these states; those that are not named are emptied."""
    by_path = {state.path: state for state in states}
    for path, metric in metrics_of(module):
        metric.reset()
        if path in by_path:
            _put(metric, by_path[path])


@contextmanager
def kept_states(module: nn.Module) -> Iterator[None]:
    """Give the torchmetrics of ``module`` back, after the block, the states that they have now."""
    states = take_states(module)
    try:
        yield
    finally:
        put_states(module, states)


def value_of(module: nn.Module, state: MetricState) -> Tensor | None:
    """Compute a torchmetric's value from a state, which stays in the metric.

    Args:
        module: The module that holds the metric.
        state: The state.

    Returns:
        The value, shape ``()``; ``None`` for a metric of several numbers.
    """
    metric = metric_at(module, state.path)
    _put(metric, state)
    value = metric.compute()
    return value if isinstance(value, Tensor) and value.numel() == 1 else None


def values_of(module: nn.Module, states: Iterable[MetricState]) -> dict[str, float]:
    """Compute what torchmetrics of one number come to, by path; the states stay in the metrics.

    Args:
        module: The module that holds them.
        states: Their states.
    """
    values = {state.path: value_of(module, state) for state in states}
    return {path: float(value) for path, value in values.items() if value is not None}


def merge_states(module: nn.Module, groups: Sequence[Iterable[MetricState]]) -> tuple[MetricState, ...]:
    """Merge the states that several workers report, in the order given.

    Args:
        module: The module that holds the metrics, for each state's reduction; not changed.
        groups: One group of states for each worker; workers that never updated a metric leave it out.

    Returns:
        One state per metric: what it would hold after seeing all workers' data.

    Raises:
        ValueError: A metric has a state that cannot be merged (no reduction, or a function of its own).
    """
    metrics = dict(metrics_of(module))
    merged: dict[str, MetricState] = {}
    for group in groups:
        for state in group:
            before = merged.get(state.path)
            merged[state.path] = state if before is None else _merge(metrics[state.path], before, state)
    return tuple(merged.values())


def _put(metric: Metric, state: MetricState) -> None:
    for name, value in state.values.items():
        setattr(metric, name, _copy(value))
    metric._update_count = state.updates
    metric._computed = None


def _merge(metric: Metric, first: MetricState, second: MetricState) -> MetricState:
    values = {
        name: _merge_value(
            metric, name, first.values[name], second.values[name], first.updates, second.updates
        )
        for name in metric._defaults
    }
    return MetricState(first.path, first.updates + second.updates, values)


def _merge_value(
    metric: Metric, name: str, first: StateValue, second: StateValue, n_first: int, n_second: int
) -> StateValue:
    if isinstance(first, list) or isinstance(second, list):
        return [*first, *second]
    reduction = metric._reductions[name]
    if reduction is dim_zero_sum:
        return first + second
    if reduction is dim_zero_max:
        return torch.maximum(first, second)
    if reduction is dim_zero_min:
        return torch.minimum(first, second)
    if reduction is dim_zero_mean:
        return (first * n_first + second * n_second) / (n_first + n_second)
    if reduction is dim_zero_cat:
        return torch.cat([first.reshape(-1), second.reshape(-1)] if first.dim() == 0 else [first, second])
    raise ValueError(
        f"{type(metric).__name__}.{name} has no reduction over workers (dist_reduce_fx={reduction!r}), so "
        "its state cannot be merged exactly. Compute this metric in validation, or use update='sequential'."
    )


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [item.detach().clone() for item in value]
    return value.detach().clone()


def _states_that_travel(module: nn.Module) -> tuple[MetricState, ...] | None:
    # None of no metrics at all: where there are some, that all are empty has to be said, too.
    return take_states(module) if any(isinstance(part, Metric) for part in module.modules()) else None


def _put_what_travelled(module: nn.Module, states: Any) -> None:
    known = dict(metrics_of(module))
    for state in states:
        if not isinstance(state, MetricState) or set(state.values) != set(known[state.path]._defaults):
            raise ValueError("the states of a module's metrics do not fit them")
    put_states(module, states)


# A module in this process has its metrics in itself; to another process, their states travel beside it.
accompany_modules(f"{__name__}:states", _states_that_travel, _put_what_travelled)


def _is_filled_list(value: StateValue) -> bool:
    return isinstance(value, list) and len(value) > 0


def _advice(paths: Iterable[str]) -> str:
    named = ", ".join(map(repr, paths))
    return named and (
        f"the metric {named} has kept values per sample: give it thresholds=, if it takes them, or compute "
        "it where predictions may be seen"
    )
