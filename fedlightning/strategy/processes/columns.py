"""The visits of a cohort inside a process, to workers of whom nothing is made: together, or in turn.

How steps are taken lives in ``local``; what else a process does, in `resident`.
"""

from __future__ import annotations

from collections.abc import Mapping

import lightning.pytorch as pl
import numpy as np
from torch.optim import Optimizer

from fedlightning.algorithms import Update, UpdateMean
from fedlightning.local.failures import NotFinite
from fedlightning.local.known import known
from fedlightning.local.one_by_one.batches import VisitBatches
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.one_by_one.training import OneByOne
from fedlightning.local.vectorised.chunks import Numbers
from fedlightning.local.vectorised.refusal import in_few_words
from fedlightning.local.vectorised.training import VectorisedTraining
from fedlightning.strategy.aggregation import updates_of
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.processes.claims import Claims
from fedlightning.strategy.processes.failing import ReshapedBuffer, told
from fedlightning.strategy.processes.messages import Cohort, Columns, ColumnsDone, Failure, Way
from fedlightning.strategy.processes.slots import Slots
from fedlightning.strategy.processes.watch import ModuleWatch
from fedlightning.strategy.snapshot import ModuleSnapshot


class TogetherHere:
    """Carry out visits together, round after round, with the same module and optimizer.

    Args:
        module: The resident module.
        optimizer: Its optimizer.
        way: How.
    """

    def __init__(self, module: pl.LightningModule, optimizer: Optimizer, way: Way) -> None:
        self.way = way
        self._training = VectorisedTraining(
            module,
            optimizer,
            chunk=way.chunk,
            numbered=way.numbered,
            draws=way.draws,
            compiled=way.compiled,
            limit=way.limit,
        )

    def work(self, cohort: Cohort, columns: Columns, slots: Slots) -> ColumnsDone:
        """Make the visits of a portion, whose pieces are chunks, from the module as it is.

        Args:
            cohort: The visits of the round.
            columns: Which of them.
            slots: Where the mean of each piece goes.
        """
        errands = cohort.errands.some(columns.visits)
        means, reports = [], []
        try:
            for slot, chunk in zip(columns.slots, self._training.train(errands), strict=True):
                finite = np.flatnonzero(chunk.reports.finite).tolist()
                weights = {row: cohort.weights[columns.visits[chunk.numbers[row]]] for row in finite}
                mean, weight = slots.open(slot), 0.0
                for update, own in updates_of(chunk, weights, means=True):
                    mean.add(update, own)
                    weight += own
                means.append(slots.put_down(mean, weight, slot))
                reports.append((columns.visits[chunk.numbers], chunk.reports))
        except Exception as error:  # noqa: BLE001  # made one by one, the visits tell
            return ColumnsDone(columns.number, why_not=in_few_words(error))
        told = self._training.why_not_compiled
        return ColumnsDone(columns.number, means, reports, why_not_compiled=told)


class InTurnHere:
    """Carry out visits of a round one after the other.

    Args:
        module: The resident module.
        cohort: All visits of the round.
        batches: Theirs.
        start: What each starts with.
        optimization: The optimizer, with the settings of the round.
        watch: Looks whether a visit changes the module.
        retries: How often a visit that raises is made again.
        tapes: Those of steps of earlier rounds.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        cohort: Cohort,
        batches: VisitBatches,
        start: ModuleSnapshot,
        optimization: Optimization,
        watch: ModuleWatch,
        retries: int,
        tapes: StepTapes,
    ) -> None:
        self._module = module
        self._weights = cohort.weights
        self._training = OneByOne(module, optimization.optimizers[0], cohort.errands, tapes, batches)
        self._start = start
        self._optimization = optimization
        self._watch = watch
        self._retries = retries
        self._skips = cohort.skips

    def work(self, columns: Columns, slots: Slots, claims: Claims, process: int) -> ColumnsDone:
        """Make the visits of a portion, or of those pieces of it that this process gets hold of.

        Args:
            columns: Which they are.
            slots: Where the mean of each piece goes.
            claims: Where pieces are taken that are claimed; nobody takes more once the round has failed.
            process: Number of this process.
        """
        count = len(columns.slots)
        pieces, means = [], []
        failures: dict[int, Failure | None] = {}
        parts = np.split(columns.visits, np.cumsum(columns.sizes)[:-1])
        self._watch.begin_visit()
        with self._training.at_work_alone():
            for piece in claims.taken_by(process, count) if columns.claimed else range(count):
                slot, mean = columns.slots[piece], slots.open(columns.slots[piece])
                weight = self._add_visits(mean, parts[piece], failures)
                pieces.append(piece)
                means.append(slots.put_down(mean, weight, slot))
                if self._fails_the_round(failures):
                    claims.withdraw()
                elif columns.claimed:
                    claims.finish(piece, means[-1].count, weight)
        reports, metrics = [self._training.take_reports()], self._training.take_metrics()
        changed = self._watch.changed()
        return ColumnsDone(columns.number, means, reports, metrics, failures, changed, pieces=pieces)

    def _add_visits(self, mean: UpdateMean, visits: Numbers, failures: dict[int, Failure | None]) -> float:
        """Make the visits of a piece, take their updates into its mean, and return the weight of all."""
        weight = 0.0
        for number in visits.tolist():
            if self._succeeds(number, failures):
                mean.add(_left_on(self._module), self._weights[number])
                weight += self._weights[number]
            elif self._fails_the_round(failures):
                break
        return weight

    def _succeeds(self, number: int, failures: dict[int, Failure | None]) -> bool:
        """Make a visit; note why it has failed if it does."""
        try:
            self._attempt(number)
        except NotFinite:
            failures[number] = None
        except Exception as error:  # noqa: BLE001  # told to the controller, which raises it or goes on
            failures[number] = told(error)
        return number not in failures

    def _fails_the_round(self, failures: Mapping[int, Failure | None]) -> bool:
        kinds = {"nonfinite" if failure is None else "error" for failure in failures.values()}
        return not kinds <= self._skips

    def _attempt(self, number: int, failures: int = 0) -> None:
        self._start.restore()
        self._optimization.begin_visit()
        try:
            self._training.visit(number)
            if reshaped := self._start.reshaped_buffer():
                raise ReshapedBuffer(reshaped)
        except (NotFinite, ReshapedBuffer):
            raise
        except Exception:
            if failures == self._retries:
                raise
            self._attempt(number, failures + 1)


def _left_on(module: pl.LightningModule) -> Update:
    tensors = known(module)
    return Update.left_on(tensors.parameters, tensors.buffers, "parameters")
