"""Rounds of one virtual worker that takes one local step: the Trainer's own steps, as in an ordinary fit.

There is nobody to average with and nothing to keep apart, so the Trainer reads the batches, calls the hooks
and steps the optimizer itself. What makes a round of a step lies around it: it is announced, recorded,
entered in the worker's ledger, and undone if it fails. Visits to workers live in ``rounds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from fedlightning.algorithms import Plan
from fedlightning.local.known import looked_up_once
from fedlightning.local.logs import LoggedValue
from fedlightning.local.metrics import put_states, take_states
from fedlightning.local.overhearing import overheard_logs
from fedlightning.local.randomness import capture_global_streams, restore_global_streams
from fedlightning.local.stepping import loss_of
from fedlightning.local.visit import VisitReport
from fedlightning.strategy import lightning_calls
from fedlightning.strategy.backward import Around
from fedlightning.strategy.errors import RoundFailed, RoundInterrupted, round_failed
from fedlightning.strategy.events import Audience
from fedlightning.strategy.federation import Member
from fedlightning.strategy.interrupts import Interrupts
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.phases import PhaseClock
from fedlightning.strategy.records import RoundRecord
from fedlightning.strategy.replaying import VisitReplayed, keep_for_replay
from fedlightning.strategy.reporting import record_of
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.run import Run
from fedlightning.strategy.snapshot import ModuleSnapshot
from fedlightning.strategy.visits import VisitBook
from fedlightning.workers import in_round, program


class PlainVisit:
    """Be the visit that is under way: from the beginning of a training step to the end of its backward pass.

    Args:
        member: The worker.
        module: The module, which is the worker's until the visit ends.
        plan: The round.
        audience: Who is told of the visit.
        optimization: The optimizers that the module steps by hand; ``None`` where the Trainer steps.
    """

    def __init__(
        self,
        member: Member,
        module: pl.LightningModule,
        plan: Plan,
        audience: Audience,
        optimization: Optimization | None,
    ) -> None:
        (assignment,) = plan.assignments
        self._member = member
        self._module = module
        self.plan = plan
        self._optimization = optimization
        self._streams = capture_global_streams()
        with looked_up_once(module):
            self._start = ModuleSnapshot(module, trainable=optimization is not None)
            self._metrics = take_states(module)
        self._book = VisitBook(module, audience, plan)
        self._book.begin(member, assignment)
        with in_round(plan.round):
            self._pointer = member.worker.send(module)
        self.loss: Tensor | None = None
        self.logs: tuple[LoggedValue, ...] = ()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Run a part of the step; if it fails, the module is again what it was before the step.

        Raises:
            RoundFailed: The user's code raised.
            RoundInterrupted: The run was interrupted.
        """
        by_hand = self._optimization.kept_on_failure() if self._optimization is not None else nullcontext()
        try:
            with in_round(self.plan.round), by_hand:
                yield
        except StopIteration:  # a step that reads its batches itself says so where there are no more
            self._bring_back()
            raise
        except BaseException as error:
            self._undo()
            (assignment,) = self.plan.assignments
            where = assignment.worker, self.plan.round, assignment.first_step
            if isinstance(error, KeyboardInterrupt):
                raise RoundInterrupted(*where) from error
            if isinstance(error, RoundFailed) or not isinstance(error, Exception):
                raise
            raise round_failed(*where, error) from error

    def end(self) -> RoundResult:
        """Take the module back, and say what the visit has come to."""
        report = VisitReport(steps=1, loss=self.loss, logs=self.logs, metrics=())
        with in_round(self.plan.round):
            self._bring_back()
            self._member.worker.run(report_step, lambda: report)
        self._book.end(self._member, report)
        return RoundResult(
            average=(),
            buffers=(),
            loss=self.loss,
            logs=self.logs,
            metrics=(),
            visits=tuple(self._book.records),
        )

    def _bring_back(self) -> None:
        self._member.worker.get(self._pointer)

    def _undo(self) -> None:
        self._bring_back()
        self._start.restore()
        put_states(self._module, self._metrics)
        restore_global_streams(self._streams)


class PlainRounds:
    """Count the Trainer's own steps as rounds.

    Args:
        trainer: The Trainer.
        run: Its fit, whose loaders give their batches to the Trainer.
        interrupts: Held back from the end of a round until its step is taken.
        clock: Is told what the rounds' time goes to: the step is work, the optimizer's aggregation.
    """

    def __init__(self, trainer: pl.Trainer, run: Run, interrupts: Interrupts, clock: PhaseClock) -> None:
        self._trainer = trainer
        self._run = run
        self._interrupts = interrupts
        self._clock = clock
        self._audience = Audience()
        self._fresh = False
        self._visit: PlainVisit | None = None
        self._ended: RoundRecord | None = None

    def begin_batch(self) -> None:
        """Expect a step on another batch: some optimizers evaluate their closure several times on one."""
        self._fresh = True

    def training_step(self, step: Callable[[], STEP_OUTPUT]) -> STEP_OUTPUT:
        """Take a step, up to its loss.

        Args:
            step: The step of an ordinary fit.

        Returns:
            What it returns.

        Raises:
            RoundFailed: The user's code raised.
        """
        if not self._fresh:
            return step()
        self._fresh = False
        visit = self._begin()
        with self._in_visit(visit), overheard_logs(self._module) as logs:
            output = step()
        visit.loss, visit.logs = _value_of(output), logs.values
        if self._by_hand or output is None or lightning_calls.skips_backward(self._trainer):
            self._complete(visit)
        else:
            self._visit = visit
        return output

    def backward_guard(self) -> Around | None:
        """Return what each part of a step's backward pass runs in; it raises as `training_step` does.

        Returns:
            ``None`` where no step waits for its gradients: by hand, or once more for the same batch.
        """
        visit = self._visit
        return None if visit is None else partial(self._in_visit, visit)

    def end_backward(self) -> None:
        """Complete the round of a step that has its gradients now, where the Trainer steps the optimizer."""
        visit, self._visit = self._visit, None
        if visit is not None:
            self._complete(visit)

    def optimizer_step(self, step: Callable[[], Any]) -> Any:
        """Step an optimizer, and tell of the round's end where the Trainer does it.

        Args:
            step: The step of an ordinary fit, which evaluates the closure.

        Returns:
            What it returns.
        """
        output = step()
        self._clock.turn_to("log")
        self._announce_end()
        self._enter_times()
        return output

    def _begin(self) -> PlainVisit:
        self._clock.turn_to("send")
        plan = self._run.next_plain()
        assert self._run.federation is not None
        (member,) = self._run.federation.members.values()
        self._audience = Audience(self._trainer)
        self._audience.tell("on_round_start", plan)
        optimization = self._optimization() if self._by_hand else None
        return PlainVisit(member, self._module, plan, self._audience, optimization)

    def _complete(self, visit: PlainVisit) -> None:
        self._interrupts.hold()
        self._clock.turn_to("log")
        result = visit.end()
        self._ended = record_of(visit.plan, result, self._run.traffic)
        self._run.complete(self._ended, replace(result, server_state=self._run.server_state))
        if self._by_hand or lightning_calls.only_accumulates(self._trainer):
            self._announce_end()
            self._enter_times()
        else:
            self._clock.turn_to("aggregate")
        if self._run.replays:
            raise VisitReplayed

    def _enter_times(self) -> None:
        self._clock.turn_to(None)
        history = self._run.history
        if history:
            history.add_times(history[-1].round, self._clock.take())

    def _announce_end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self._audience.tell("on_round_end", ended)

    @contextmanager
    def _in_visit(self, visit: PlainVisit) -> Iterator[None]:
        self._clock.turn_to("work")
        try:
            with visit.under_way():
                yield
        except (RoundFailed, RoundInterrupted) as failure:
            self._clock.turn_to(None)
            self._visit = None
            if not self._run.replays:
                keep_for_replay(self._trainer, failure)
            if isinstance(failure, RoundInterrupted):  # of which Lightning says nothing more
                rank_zero_warn(str(failure))
            raise

    def _optimization(self) -> Optimization:
        strategy = self._trainer.strategy
        schedulers = [config.scheduler for config in strategy.lr_scheduler_configs]
        return Optimization(strategy.optimizers, schedulers, keeps_settings=True)

    @property
    def _module(self) -> pl.LightningModule:
        return self._trainer.lightning_module

    @property
    def _by_hand(self) -> bool:
        return not self._module.automatic_optimization


def _value_of(output: STEP_OUTPUT) -> Tensor | None:
    loss = loss_of(output, required=False)
    return None if loss is None else loss.detach().clone()


@program(returns="metrics")
def report_step(report: Callable[[], VisitReport]) -> VisitReport:
    """Report a step that the Trainer has taken in the worker's place, so that the ledger has what left."""
    return report()
