"""The part of the strategy that a user reads: the federation, its history, and what each worker holds.

What fills it is the fit (``run``), driven from ``federated``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer
from typing_extensions import override

from fedlightning.algorithms import Plan, ServerState
from fedlightning.strategy.evaluation_hooks import EvaluatingStrategy
from fedlightning.strategy.federation import Federation
from fedlightning.strategy.history import History
from fedlightning.strategy.notebook import strategy_as_html
from fedlightning.strategy.records import WorkerSummary
from fedlightning.strategy.reporting import describe, evaluate_at
from fedlightning.strategy.run import Run
from fedlightning.strategy.settings import FederationSettings
from fedlightning.workers import Worker


class ReadableStrategy(EvaluatingStrategy):
    """Hold the current or last fit, and show it to the user.

    Args:
        *args: As of a single-device strategy.
        settings: What the user has set.
        **kwargs: As of a single-device strategy.
    """

    def __init__(self, *args: Any, settings: FederationSettings, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        self._run: Run | None = None
        self._described: dict[str, WorkerSummary] = {}

    @property
    def federation(self) -> Federation:
        """The workers of the current or last fit.

        Raises:
            RuntimeError: Nothing has been fitted yet.
        """
        federation = None if self._run is None else self._run.federation
        if federation is None:
            raise RuntimeError(
                "there is no federation before trainer.fit has placed the data at the workers."
            )
        return federation

    @property
    def history(self) -> History:
        """What the rounds of the current or last fit came to; empty before the first."""
        return History() if self._run is None else self._run.history

    @property
    def current_plan(self) -> Plan | None:
        """The plan of the round that runs, or ran last; ``None`` before the first."""
        return None if self._run is None else self._run.plan

    @property
    def server_optimizer(self) -> Optimizer | None:
        """The optimizer that steps the global module; ``None`` without one, or before the first fit."""
        return None if self._run is None else self._run.server.optimizer

    @property
    def server_state(self) -> ServerState:
        """What the server keeps for its algorithm between rounds, such as a control variate."""
        return {} if self._run is None else self._run.server_state

    def federation_summary(self, *, evaluate: bool = True) -> list[WorkerSummary]:
        """Say of every worker what it holds, how the global module does there, and what passed its door.

        Args:
            evaluate: Whether to run ``validation_step`` on each worker's own training data, at the worker.

        Returns:
            One summary per worker.
        """
        assert self.lightning_module is not None
        summaries = []
        for name, member in self.federation.members.items():
            if name not in self._described:
                self._described[name] = describe(member)
            metrics = evaluate_at(member, self.lightning_module, self._personalised_at) if evaluate else {}
            ledger = member.worker.ledger
            summaries.append(
                replace(
                    self._described[name],
                    metrics=metrics,
                    sent_bytes=ledger.sent_bytes,
                    received_bytes=ledger.received_bytes,
                )
            )
        return summaries

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings})"

    def _repr_html_(self) -> str:
        placed = self._run is not None and self._run.federation is not None
        return strategy_as_html(repr(self), self.federation.samples if placed else None, self.history)

    @override
    def _personalised_at(self, worker: Worker, module: Any) -> Any:
        return None if self._run is None else self._run.personalised_at(worker, module)

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.lightning_module is not None
        return self.lightning_module.trainer

    @property
    def _this_run(self) -> Run:
        assert self._run is not None
        return self._run
