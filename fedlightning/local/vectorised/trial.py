"""A short trial of the vectorised path on a copy of the module: does it give the same numbers, and faster?

What a module does in ``training_step`` shows only when that runs: some of it cannot be done for several
workers at once (a value is asked for, a branch depends on data), some of it would silently be done once for
all of them (a count kept on the module, a random number from NumPy). So one step of two workers is taken by
both paths, and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from time import process_time
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric, MetricCollection

from fedlightning.local.metrics import MetricState, merge_states, reset_metrics
from fedlightning.local.training import train_locally
from fedlightning.local.vectorised.chunks import Errand, Errands
from fedlightning.local.vectorised.fitness import reads_batch_idx, why_not_batchable
from fedlightning.local.vectorised.functorch_calls import is_shown_by_vmap
from fedlightning.local.vectorised.refusal import NotBatchable, in_few_words
from fedlightning.local.vectorised.timing import (
    LONG_STEP,
    SMALL_STACK,
    best_chunk,
    seconds_alone,
    seconds_together,
    usual_chunk,
)
from fedlightning.local.vectorised.training import VectorisedTraining
from fedlightning.local.visit import VisitReport

Wish = Literal["auto"] | bool | int
"""Whether steps are taken for several workers at once: wherever that is faster, wherever it works, never.

A number says for how many at once, in place of measurements: then every bit of a run is decided beforehand.
"""

_ENOUGH = 100
_WARM_STEPS = 3
_WORSE = 1.05
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Findings:
    """What a trial has found.

    Args:
        reason: Why the steps of several workers are not taken as one; empty if they are.
        chunk: How many workers take their steps together.
        numbered: Whether ``training_step`` looks at the number of a batch.
        draws: Whether it draws random numbers.
        faster: By how many times the vectorised path was faster, as far as it was measured.
    """

    reason: str
    chunk: int = 0
    numbered: bool = True
    draws: bool = False
    faster: float | None = None


def examine(
    module: pl.LightningModule, optimizers: Sequence[Optimizer], errands: Errands, wish: Wish
) -> Findings:
    """Find out whether, and in what chunks, the steps of several workers are taken as one.

    Args:
        module: The module, attached to a Trainer. It is copied; not even its attributes change.
        optimizers: Its optimizers.
        errands: The visits of a round, not changed.
        wish: What the user wants; anything but ``False``.

    Returns:
        The findings; with a reason where every visit is to be carried out by itself.
    """
    reason = why_not_batchable(module, optimizers, errands.visit) or errands.why_not
    if reason:
        return Findings(reason)
    numbered = reads_batch_idx(module)
    try:
        trial = _Trial(module, optimizers[0], numbered=numbered)
        if wish == "auto" and trial.is_long(errands):
            return trial.by_itself(errands)
        draws = trial.compare(errands, wish if type(wish) is int else 2)
        if type(wish) is int:
            return Findings("", wish, numbered, draws)
        chunk, faster = trial.fastest(errands, draws=draws)
    except Exception as error:  # noqa: BLE001  # whatever it is: the sequential path will tell, if it is the user's
        return Findings(in_few_words(error))
    if wish == "auto" and faster < 1:
        return Findings("it was not faster in a trial", faster=faster)
    return Findings("", chunk, numbered, draws, faster)


class _Trial:
    """Run both paths on a copy of a module."""

    def __init__(self, module: pl.LightningModule, optimizer: Optimizer, *, numbered: bool) -> None:
        self._module = _copied(module)
        self._optimizer = _optimizer_of(self._module, module, optimizer)
        self._numbered = numbered
        # One step of plain SGD shows the gradients; other optimizers blow up what is next to zero.
        self._unit_steps = SGD([p for p in self._module.parameters() if p.requires_grad], lr=1.0)
        self._seconds_alone = 0.0
        self._first: tuple[VisitReport, list[Tensor]] | None = None
        self._start = [tensor.detach().clone() for tensor in self._tensors]

    @property
    def _tensors(self) -> list[Tensor]:
        return [*self._module.parameters(), *self._module.buffers()]

    def compare(self, errands: Errands, chunk: int) -> bool:
        """Take one step of two workers by both paths; of one, if none is ever taken for more.

        Returns:
            Whether the module draws random numbers.

        Raises:
            NotBatchable: They do not come to the same.
        """
        numbers = [0] if chunk == 1 else _two_alike(errands)
        chosen, optimizer = errands.some(numbers).shortened(1), self._unit_steps
        alone = [self._first] if self._first is not None and numbers[0] == 0 else []
        alone += [self._alone(chosen.one(number), optimizer) for number in range(len(alone), len(chosen))]
        reset_metrics(self._module)
        before = _attributes(self._module)
        training = VectorisedTraining(
            self._module, optimizer, chunk=len(chosen), numbered=self._numbered, draws=True
        )
        (done,) = training.train(chosen)
        for row, number in enumerate(done.numbers):
            report, parameters = alone[number]
            _compare(report, done.reports[row])
            _compare_steps(self._start[: len(parameters)], parameters, done.parameters_of(row))
        _compare_metrics(
            merge_states(self._module, [alone[number][0].metrics for number in done.numbers]),
            merge_states(self._module, done.reports.metrics.groups),
        )
        _compare_attributes(before, _attributes(self._module))
        return training.draws_made > 0

    def is_long(self, errands: Errands) -> bool:
        """Tell whether a step by itself is long, and goes on being so: the first ones find nothing warm.

        Args:
            errands: The visits.
        """
        # What a step by SGD comes to is compared later on.
        self._first = self._alone(errands.one(0).shortened(1), self._unit_steps)
        for taken in range(_WARM_STEPS):
            if self._seconds_alone <= LONG_STEP:
                return False
            if taken and self._seconds_alone > 3 * LONG_STEP:
                return True
            with self._put_back():
                self._clocked(errands.one(0).shortened(1), self._optimizer)
        return self._seconds_alone > LONG_STEP

    def by_itself(self, errands: Errands) -> Findings:
        """Find out whether long steps are shorter where a worker is the only one of its chunk.

        Args:
            errands: The visits.
        """
        draws = self.compare(errands, 1)
        training = self._training(1, draws=draws)
        faster = 0.0
        for _ in range(2):
            faster = max(faster, self._seconds_alone / seconds_together(training, errands.shortened(1)))
            # What is as good as equal in so short a measurement is taken for faster, as it is for long steps.
            if faster * _WORSE > 1:
                return Findings("", 1, self._numbered, draws, faster)
        return Findings("its steps take long enough by themselves", 1, self._numbered, draws, faster)

    def fastest(self, errands: Errands, *, draws: bool) -> tuple[int, float]:
        """Measure both paths.

        Returns:
            The size of a chunk, and by how many times it was faster than one visit after the other.
        """
        with self._put_back():
            alone = seconds_alone(self._module, self._optimizer, errands.some([0, 1]))
        size = sum(p.numel() * p.element_size() for p in self._module.parameters() if p.requires_grad)
        usual = usual_chunk(len(errands), size)
        if usual * size <= SMALL_STACK:
            # Next to nothing is computed in such steps: the first ones of a part of the chunk tell enough.
            seconds = seconds_together(self._training(min(usual, _ENOUGH), draws=draws), errands)
            if seconds < alone:
                return usual, alone / seconds
        chunks = [usual, 1] if alone > LONG_STEP else [usual]
        trainings = [self._training(chunk, draws=draws) for chunk in chunks]
        best, seconds = best_chunk(trainings, errands, alone)
        return best.chunk, alone / seconds

    def _training(self, chunk: int, *, draws: bool) -> VectorisedTraining:
        return VectorisedTraining(
            self._module, self._optimizer, chunk=chunk, numbered=self._numbered, draws=draws
        )

    def _alone(self, errand: Errand, optimizer: Optimizer) -> tuple[VisitReport, list[Tensor]]:
        with self._put_back():
            report = self._clocked(errand, optimizer)
            return report, [parameter.detach().clone() for parameter in self._module.parameters()]

    def _clocked(self, errand: Errand, optimizer: Optimizer) -> VisitReport:
        started = process_time()
        report = train_locally(self._module, [optimizer], errand.stream, errand.memory, errand.visit)
        self._seconds_alone = process_time() - started
        return report

    @contextmanager
    def _put_back(self) -> Iterator[None]:
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, before in zip(self._tensors, self._start, strict=True):
                    tensor.copy_(before)


def _two_alike(errands: Errands) -> list[int]:
    """Choose two visits that begin with batches of the same size, if there are any."""
    by_size: dict[int, int] = {}
    for number, size in enumerate(errands.first_sizes().tolist()):
        if size in by_size:
            return [by_size[size], number]
        by_size[size] = number
    raise NotBatchable("no two workers begin with batches of the same size")


def _copied(module: pl.LightningModule) -> pl.LightningModule:
    """Copy a module; the copy has the same Trainer, which Lightning leaves out of copies."""
    twin = deepcopy(module)
    twin._trainer = module._trainer
    return twin


def _optimizer_of(twin: pl.LightningModule, module: pl.LightningModule, optimizer: Optimizer) -> Optimizer:
    """Make an optimizer of the same settings for a copy of a module."""
    of_twin = {id(p): q for p, q in zip(module.parameters(), twin.parameters(), strict=True)}
    kind: Any = type(optimizer)
    groups = [
        {**deepcopy({name: value for name, value in group.items() if name != "params"}), "params": parameters}
        for group in optimizer.param_groups
        if (parameters := [of_twin[id(p)] for p in group["params"] if id(p) in of_twin])
    ]
    made: Optimizer = kind(groups)
    return made


def _compare(alone: VisitReport, together: VisitReport) -> None:
    theirs, ours = ({log.name: log for log in report.logs} for report in (alone, together))
    if [(name, log.metric) for name, log in theirs.items()] != [(n, log.metric) for n, log in ours.items()]:
        raise NotBatchable("it logs other names when several workers are trained at once")
    _compare_values("the loss", alone.loss, together.loss)
    for name, log in theirs.items():
        if log.metric is None:
            _compare_values(name, log.value, ours[name].value)


def _compare_metrics(alone: Sequence[MetricState], together: Sequence[MetricState]) -> None:
    """Compare what torchmetrics come to over all workers, as one of them may count for all."""
    theirs, ours = ({state.path: state for state in states} for states in (alone, together))
    if {s.path: s.updates for s in alone} != {s.path: s.updates for s in together}:
        raise NotBatchable("other torchmetrics count when several workers are trained at once")
    for path, state in theirs.items():
        other = ours[path]
        values, others = tree_leaves(state.values), tree_leaves(other.values)
        if len(values) != len(others):
            raise NotBatchable(f"{state.path} is another when several workers are trained at once")
        for value, its in zip(values, others, strict=True):
            _compare_values(state.path, value, its)


def _compare_values(name: str, value: Tensor | None, other: Tensor | None) -> None:
    if (
        value is None
        or other is None
        or value.shape != other.shape
        or not torch.allclose(
            value.double(), other.double(), rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
        )
    ):
        raise NotBatchable(f"{name} is another when several workers are trained at once")


def _compare_steps(start: Sequence[Tensor], alone: Sequence[Tensor], together: Sequence[Tensor]) -> None:
    longest = max(_largest(one - before) for before, one in zip(start, alone, strict=True))
    for before, one, other in zip(start, alone, together, strict=True):
        slack = _TOLERANCE * longest + 1e-6 * _largest(before)
        if _largest(one - other) <= slack:
            continue  # as nearly always, and much faster than what follows
        if not torch.allclose(one, other, rtol=0, atol=slack, equal_nan=True):
            raise NotBatchable("gradients are others when several workers are trained at once")


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def _attributes(module: pl.LightningModule) -> dict[str, tuple[Any, int]]:
    """Return every plain attribute of a module and its parts, with its length if it has one."""
    return {
        f"{path}.{name}".strip("."): (value, len(value) if _is_container(value) else 0)
        for path, child in module.named_modules()
        for name, value in copy(vars(child)).items()
        # Metrics count in the one way and in the other.
        if not isinstance(child, Metric | MetricCollection)
        and name not in ("_parameters", "_buffers", "_modules", "_trainer", "log")
    }


def _compare_attributes(before: Mapping[str, tuple[Any, int]], after: Mapping[str, tuple[Any, int]]) -> None:
    for name, (value, length) in after.items():
        old, old_length = before.get(name, (None, 0))
        if old is not value or length != old_length or is_shown_by_vmap(value):
            raise NotBatchable(f"training_step changes self.{name}")


def _is_container(value: Any) -> bool:
    return isinstance(value, Sized) and not isinstance(value, Tensor | str | torch.nn.Module)
