"""The base class of callbacks that follow a federation: Lightning's hooks, and four of our own."""

from __future__ import annotations

import lightning as L

from fedlightning.algorithms import Plan
from fedlightning.strategy.events import hears_nothing
from fedlightning.strategy.records import RoundRecord, VisitRecord, VisitStart


class FederatedCallback(L.Callback):
    """Be told of rounds and visits: an ordinary Lightning callback with four hooks more.

    They are called at the controller, in worker order, inside Lightning's batch::

        on_train_batch_start           Lightning's: one batch is one round
          on_round_start               nothing has been sent yet
            on_worker_start            for each worker of the cohort
            on_worker_end              the module is back and holds the global parameters again
          on_round_end                 the global module holds the round's result
        on_train_batch_end             Lightning's

    A hook sees what has left the worker through its policy, never the worker's data. A visit that fails and
    is skipped has no ``on_worker_end``; who was skipped is in the round's record. A round that fails has no
    ``on_round_end``; Lightning's ``on_exception`` is called instead. Without a federation, none of the four
    is called.

    Example:
        >>> class Narrator(FederatedCallback):
        ...     def on_worker_end(self, trainer, pl_module, visit):
        ...         print(f"round {visit.round}: {visit.worker} trained on {visit.samples} samples")
        >>> visit = VisitRecord(0, "bob", 120, 4, 0.7, {}, 1000, 2000)  # as the strategy makes one
        >>> Narrator().on_worker_end(None, None, visit)
        round 0: bob trained on 120 samples
    """

    def on_round_start(self, trainer: L.Trainer, pl_module: L.LightningModule, plan: Plan) -> None:
        """Hear of a round before its first visit.

        Args:
            trainer: The Trainer.
            pl_module: The global module.
            plan: Number and workers of the round (``plan.round``, ``plan.workers``).
        """

    @hears_nothing
    def on_worker_start(self, trainer: L.Trainer, pl_module: L.LightningModule, visit: VisitStart) -> None:
        """Hear of a visit before the module is sent.

        Args:
            trainer: The Trainer.
            pl_module: The global module.
            visit: Worker, samples and local steps to do.
        """

    @hears_nothing
    def on_worker_end(self, trainer: L.Trainer, pl_module: L.LightningModule, visit: VisitRecord) -> None:
        """Hear of a visit once the module is back.

        Args:
            trainer: The Trainer.
            pl_module: The global module, with the parameters that it had before the round.
            visit: Loss, logged metrics and bytes of the visit.
        """

    def on_round_end(self, trainer: L.Trainer, pl_module: L.LightningModule, record: RoundRecord) -> None:
        """Hear of a round once the global module holds its result.

        Args:
            trainer: The Trainer.
            pl_module: The global module.
            record: Loss, metrics, spread and bytes of the round.
        """
