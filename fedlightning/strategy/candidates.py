"""What cohorts are chosen by besides chance: the global model's loss at workers. `algorithms` chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from fedlightning.local.candidate import LossRequest, measure_loss
from fedlightning.local.known import looked_up_once
from fedlightning.local.randomness import isolated_streams
from fedlightning.strategy.errors import RoundFailed, failures_named
from fedlightning.strategy.federation import Federation, Member
from fedlightning.strategy.snapshot import ModuleSnapshot
from fedlightning.strategy.tolerance import Tolerance
from fedlightning.strategy.traffic import Traffic
from fedlightning.workers import in_round
from fedlightning.workers.random import derive_seed


class LossesAtWorkers:
    """Find out the global model's loss at candidates, as it is before a round.

    Args:
        federation: The workers.
        module: The global module.
        round: Number of the round.
        seed: Seed of the run.
        reported: The mean training loss of each worker's last visit.
        tolerance: Which failures the run survives: such a candidate is left out.

    Attributes:
        traffic: What has passed the candidates' doors for it.
    """

    def __init__(
        self,
        federation: Federation,
        module: pl.LightningModule,
        *,
        round: int,
        seed: int,
        reported: Mapping[str, float],
        tolerance: Tolerance,
    ) -> None:
        self._federation = federation
        self._module = module
        self._round = round
        self._seed = seed
        self.reported = reported
        self._tolerance = tolerance
        self.traffic = Traffic()

    def evaluate(self, workers: Sequence[str], *, batches: int | None) -> Mapping[str, float]:
        """Send the global module to workers, and have its training loss measured on their own data.

        Args:
            workers: Names of the workers.
            batches: How many batches to measure on, drawn at random; ``None`` for all of the data.

        Returns:
            The mean loss by worker. Those that failed, where the run goes on, or skipped every step are left
            out.

        Raises:
            RoundFailed: One failed, and the run does not tolerate it.
        """
        start, losses = ModuleSnapshot(self._module), {}
        with looked_up_once(self._module), isolated_streams(), in_round(self._round):
            for name in workers:
                try:
                    loss = self._attempt(name, batches, start)
                except RoundFailed as failure:
                    if not self._tolerance.skips(failure.kind):
                        raise
                    rank_zero_warn(f"round {self._round}: worker {name!r} is no candidate: {failure.reason}")
                    continue
                if loss is not None:
                    losses[name] = loss
        return losses

    def _attempt(
        self, name: str, batches: int | None, start: ModuleSnapshot, failures: int = 0
    ) -> float | None:
        """Measure at a worker, and again as often as the failure at hand may be retried."""
        try:
            with failures_named(name, self._round):
                return self._measure(self._federation.members[name], batches)
        except RoundFailed as failure:
            if failures == self._tolerance.retries_of(failure.kind):
                raise
        finally:
            start.restore()
        return self._attempt(name, batches, start, failures + 1)

    def _measure(self, member: Member, batches: int | None) -> float | None:
        worker, before = member.worker, Traffic.of(member)
        seed = derive_seed(self._seed, "candidate", self._round, worker.id)
        pointer = worker.send(self._module)
        try:
            loss: float | None = worker.run(
                measure_loss, pointer, member.shard, LossRequest(worker.id, seed, batches)
            )
        finally:
            # It is not brought back: nothing has changed that is to be kept.
            worker.delete(pointer)
            self.traffic += Traffic.of(member) - before
        return loss
