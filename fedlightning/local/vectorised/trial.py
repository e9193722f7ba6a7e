"""A short trial of the vectorised path on a copy of the module: does it give the same numbers?

What a module does in ``training_step`` shows only when that runs: some of it cannot be done for several
workers at once (a value is asked for, a branch depends on data), some of it would silently be done once for
all of them (a count kept on the module, a random number from NumPy). So one step of two workers is taken by
both paths, and compared. Whether it is faster is left to sizes, as far as they tell (``timing``), and to the
first real work (``pace``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from time import process_time
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.utils._pytree import tree_leaves

from fedlightning.local.lean import LeanSGD
from fedlightning.local.metrics import MetricState, merge_states, reset_metrics
from fedlightning.local.training import train_locally
from fedlightning.local.vectorised.attributes import Attributes
from fedlightning.local.vectorised.chunks import Errand, Errands
from fedlightning.local.vectorised.fitness import reads_batch_idx, why_not_batchable
from fedlightning.local.vectorised.pace import TOO_SLOW
from fedlightning.local.vectorised.refusal import NotBatchable, in_few_words
from fedlightning.local.vectorised.timing import (
    LONG_STEP,
    best_chunk,
    is_clearly_faster,
    is_clearly_slower,
    longest_step,
    seconds_alone,
    usual_chunk,
)
from fedlightning.local.vectorised.training import TrainedChunk, VectorisedTraining
from fedlightning.local.visit import VisitReport

Wish = Literal["auto"] | bool | int
"""Whether steps are taken for several workers at once: wherever that is faster, wherever it works, never.

A number says for how many at once, in place of measurements: then every bit of a run is decided beforehand.
"""

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
        limit: The most seconds that a step together may take of each worker; ``None`` for any.
    """

    reason: str
    chunk: int = 0
    numbered: bool = True
    draws: bool = False
    limit: float | None = None


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
    if not reason and wish == "auto" and is_clearly_slower(optimizers[0], _size_of(module), is_long=True):
        reason = TOO_SLOW
    if reason:
        return Findings(reason)
    numbered = reads_batch_idx(module)
    try:
        trial = _Trial(module, optimizers[0], numbered=numbered)
        return (
            trial.of_number(errands, wish) if type(wish) is int else trial.measured(errands, wish == "auto")
        )
    except Exception as error:  # noqa: BLE001  # whatever it is: the sequential path will tell, if it is the user's
        return Findings(in_few_words(error))


@dataclass(frozen=True)
class _Together:
    """What a step that was taken together has come to.

    Args:
        done: Its numbers.
        draws: Whether it has drawn random numbers.
        before: The module's attributes before it.
        after: Those after it.
    """

    done: TrainedChunk
    draws: bool
    before: Attributes
    after: Attributes


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
        self._first_in_stack: _Together | None = None
        self._start = [tensor.detach().clone() for tensor in self._tensors]
        self._size = _size_of(self._module)

    @property
    def _tensors(self) -> list[Tensor]:
        return [*self._module.parameters(), *self._module.buffers()]

    def of_number(self, errands: Errands, chunk: int) -> Findings:
        """Find out whether steps can be taken in chunks of a given size.

        Args:
            errands: The visits.
            chunk: The size.
        """
        return Findings("", chunk, self._numbered, self.compare(errands, chunk))

    def measured(self, errands: Errands, may_refuse: bool) -> Findings:
        """Find out in what chunks steps are taken, and how long these may take.

        Args:
            errands: The visits.
            may_refuse: Whether they are taken together only where that is faster.
        """
        if self._may_be_long:
            self._warm_up(errands)
        is_long = self.is_long(errands)
        if is_long and (may_refuse or self._may_be_long):
            # What is as good as equal in so short a measurement is taken for faster.
            draws, limit = self.compare(errands, 1), self._seconds_alone * _WORSE
            return Findings("", 1, self._numbered, draws, limit if may_refuse else None)
        if not may_refuse:
            draws = self.compare(errands, 2)
            chunk = usual_chunk(len(errands), self._size, by_tape=not draws)
            if is_long:
                chunk = best_chunk(partial(self._training, draws=draws), (chunk, 1), errands)
            return Findings("", chunk, self._numbered, draws)
        return self._judged_by_size(errands)

    def _judged_by_size(self, errands: Errands) -> Findings:
        """Say how long short steps may take together, as far as it is not clear whether these are faster."""
        if is_clearly_slower(self._optimizer, self._size, is_long=False):
            return Findings(TOO_SLOW)
        draws = self.compare(errands, 2)
        chunk = usual_chunk(len(errands), self._size, by_tape=not draws)
        limit = None
        if not is_clearly_faster(chunk, self._size, by_tape=not draws and not [*self._module.buffers()]):
            with self._put_back():
                alone = seconds_alone(self._module, self._optimizer, errands.some([0, 1]))
            limit = longest_step(self._optimizer, alone)
        return Findings("", chunk, self._numbered, draws, limit)

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
        tried = self._first_in_stack if chunk == 1 else None
        tried = tried or self._together(chosen)
        done = tried.done
        for row, number in enumerate(done.numbers):
            report, parameters = alone[number]
            _compare(report, done.reports[row])
            _compare_steps(self._start[: len(parameters)], parameters, done.parameters_of(row))
        _compare_metrics(
            merge_states(self._module, [alone[number][0].metrics for number in done.numbers]),
            merge_states(self._module, done.reports.metrics.groups),
        )
        tried.before.require_the_same(tried.after)
        return tried.draws

    def _together(self, chosen: Errands) -> _Together:
        reset_metrics(self._module)
        before = Attributes.of(self._module)
        training = VectorisedTraining(
            self._module, self._unit_steps, chunk=len(chosen), numbered=self._numbered, draws=True
        )
        (done,) = training.train(chosen)
        return _Together(done, training.draws_made > 0, before, Attributes.of(self._module))

    @property
    def _may_be_long(self) -> bool:
        """Whether there are weights that are used at many places each, as those of convolutions are.

        Its own steps must cost what those of plain SGD do, which are clocked.
        """
        trained = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        return LeanSGD.fits(self._optimizer) and any(parameter.dim() > 2 for parameter in trained)

    def _warm_up(self, errands: Errands) -> None:
        """Begin with the step in a stack of one, which long steps are compared with anyway."""
        try:
            tried = self._together(errands.some([0]).shortened(1))
            # What is only set once is set by now.
            tried.before.require_the_same(tried.after)
            self._first_in_stack = tried
        except Exception:  # noqa: BLE001  # whatever it is: it is found again, and told, where it matters
            self._first_in_stack = None

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
            if (taken or self._first_in_stack is not None) and self._seconds_alone > 3 * LONG_STEP:
                return True
            with self._put_back():
                self._clocked(errands.one(0).shortened(1), self._optimizer)
        return self._seconds_alone > LONG_STEP

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


def _size_of(module: pl.LightningModule) -> int:
    """Return the bytes of what one worker trains."""
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


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
