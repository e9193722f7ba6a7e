"""The visits of a cohort one after the other, at workers of whom nothing is made: failures and updates.

What a visit does to the module lives in ``local.one_by_one``; what `Round` does, visit by visit, is the
reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import lightning.pytorch as pl

from fedlightning.algorithms import Plan
from fedlightning.algorithms.blocks import block_of
from fedlightning.local.failures import LocalStepInterrupted, NotFinite
from fedlightning.local.one_by_one.training import OneByOne
from fedlightning.strategy.aggregation import Aggregation
from fedlightning.strategy.errors import RoundFailed, RoundInterrupted, named_failure, not_finite, reshaped
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.phases import PhaseClock
from fedlightning.strategy.snapshot import ModuleSnapshot
from fedlightning.strategy.tolerance import Tolerance


@dataclass
class VisitsInTurn:
    """Carry out the visits of a round, and take their updates into the mean.

    Args:
        plan: The round.
        module: The global module.
        optimization: Its optimizers.
        training: The visits.
        aggregation: Where their updates are combined.
        weights: Weights of these.
        tolerance: Which failures the round survives.
        clock: Is told what time goes to.
        on_raise: Is told the name of a worker whose visit has raised.

    Attributes:
        skipped: Why a worker's update is not in the mean, by worker.
        ended: Positions of the visits that have come to an end, if not to a finite one.
    """

    plan: Plan
    module: pl.LightningModule
    optimization: Optimization
    training: OneByOne
    aggregation: Aggregation
    weights: Sequence[float]
    tolerance: Tolerance
    clock: PhaseClock
    on_raise: Callable[[str], None]
    skipped: dict[str, str] = field(default_factory=dict, init=False)
    ended: list[int] = field(default_factory=list, init=False)

    def carry_out(self) -> None:
        """Carry out all visits; the module is as before when this returns or raises.

        Raises:
            RoundFailed: A visit failed, and the run does not tolerate it.
            RoundInterrupted: Somebody pressed Ctrl-C.
        """
        self.clock.turn_to("send")
        start = ModuleSnapshot(self.module)
        try:
            with self.training.at_work():
                for number, worker in enumerate(self.plan.workers):
                    self._carry_out(number, worker, start)
                    start.restore()
        except BaseException:
            start.restore()
            raise

    def _carry_out(self, number: int, worker: str, start: ModuleSnapshot) -> None:
        """Visit a worker; its update is in the mean, or the worker skipped, when this returns."""
        self.clock.turn_to("work")
        try:
            self._attempt(number, worker, start)
        except RoundFailed as failure:
            if not self.tolerance.skips(failure.kind):
                raise
            self.skipped[worker] = failure.reason
            return
        self.clock.turn_to("aggregate")
        if name := start.reshaped_buffer():
            raise reshaped(name, worker, self.plan.round)
        cohort = len(self.weights)
        block = block_of(number, cohort)
        self.aggregation.add(self.module, "parameters", self.weights[number], block)
        if number + 1 < cohort and block_of(number + 1, cohort) != block:
            self.aggregation.end_block()

    def _attempt(self, number: int, worker: str, start: ModuleSnapshot, failures: int = 0) -> None:
        """Visit a worker, and again as often as the failure at hand may be retried."""
        try:
            self._visit(number, worker)
        except RoundFailed as failure:
            if failures == self.tolerance.retries_of(failure.kind):
                raise
        else:
            return
        start.restore()
        self._attempt(number, worker, start, failures + 1)

    def _visit(self, number: int, worker: str) -> None:
        round = self.plan.round
        self.optimization.begin_visit()
        try:
            self.training.visit(number)
        except NotFinite:
            self.ended.append(number)
            raise not_finite(worker, round) from None
        except KeyboardInterrupt as interrupt:
            self.on_raise(worker)
            step = interrupt.step if isinstance(interrupt, LocalStepInterrupted) else None
            raise RoundInterrupted(worker, round, step) from interrupt
        except Exception as failure:  # noqa: BLE001 - it is raised by another name
            self.on_raise(worker)
            raise named_failure(worker, round, failure)  # noqa: B904 - it has its cause
        self.ended.append(number)
