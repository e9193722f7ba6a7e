"""The part of the strategy that Lightning calls for validation, test and prediction.

A batch that is here is evaluated as on a single device; how one at a worker is lives in ``evaluation``.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override

from fedlightning.data import FederatedDataLoader
from fedlightning.local.batch_evaluation import EvaluationStep
from fedlightning.strategy.evaluation import (
    EvaluationAtWorkers,
    EvaluationLoader,
    Ticket,
    WorkerEvaluation,
)
from fedlightning.workers import Worker


class EvaluatingStrategy(SingleDeviceStrategy):
    """Evaluate the global module on ordinary loaders, and on `FederatedDataLoader`s at their workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._evaluation = EvaluationAtWorkers(seed=0)

    def evaluation_by_worker(
        self, step: EvaluationStep = "validation_step", dataloader_idx: int = 0
    ) -> list[WorkerEvaluation]:
        """Return what the last evaluation of federated data gave at each worker, for the spread over workers.

        Args:
            step: ``"validation_step"`` or ``"test_step"``.
            dataloader_idx: Which of several loaders.

        Returns:
            One entry per worker whose last batch was evaluated; none where the data was not federated.
        """
        return list(self._evaluation.by_worker.get((step, dataloader_idx), ()))

    def _start_evaluation(self, seed: int) -> None:
        self._evaluation = EvaluationAtWorkers(seed, self._personalised_at)

    def _personalised_at(self, worker: Worker, module: Any) -> Any:
        """Return a pointer to a worker's own version of a module there; ``None`` where it has none."""
        return None

    @override
    def process_dataloader(self, dataloader: object) -> object:
        """Stand in for a loader of federated data with one of tickets."""
        if isinstance(dataloader, FederatedDataLoader):
            return EvaluationLoader(dataloader, self._evaluation.seed)
        return super().process_dataloader(dataloader)

    @override
    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        """Leave a ticket where it is; its batch goes to the device at its worker."""
        return batch if isinstance(batch, Ticket) else super().batch_to_device(batch, device, dataloader_idx)

    @override
    def validation_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Validate on a batch that is here, or at the worker where it is."""
        ticket, *arguments = args
        if not isinstance(ticket, Ticket):
            return super().validation_step(*args, **kwargs)
        self._evaluate("validation_step", ticket, arguments)
        return None

    @override
    def test_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Test on a batch that is here, or at the worker where it is."""
        ticket, *arguments = args
        if not isinstance(ticket, Ticket):
            return super().test_step(*args, **kwargs)
        self._evaluate("test_step", ticket, arguments)
        return None

    @override
    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """Predict for a batch that is here, or at the worker where it is: then the prediction stays there."""
        ticket, *arguments = args
        if not isinstance(ticket, Ticket):
            return super().predict_step(*args, **kwargs)
        assert self.lightning_module is not None
        return self._evaluation.predict(self.lightning_module, ticket, arguments)

    def _evaluate(self, step: EvaluationStep, ticket: Ticket, arguments: list[int]) -> None:
        assert self.lightning_module is not None
        self._evaluation.evaluate(step, self.lightning_module, ticket, arguments)

    def on_validation_start(self) -> None:
        """Begin a validation."""
        self._evaluation.begin("validation_step")

    def on_test_start(self) -> None:
        """Begin a test."""
        self._evaluation.begin("test_step")

    def on_predict_start(self) -> None:
        """Begin a prediction."""
        self._evaluation.begin("predict_step")

    def on_validation_end(self) -> None:
        """Leave no module at a worker."""
        self._evaluation.end()

    def on_test_end(self) -> None:
        """Leave no module at a worker."""
        self._evaluation.end()

    def on_predict_end(self) -> None:
        """Leave no module at a worker."""
        self._evaluation.end()

    @override
    def teardown(self) -> None:
        """Leave no module at a worker, after an exception, too."""
        self._evaluation.end()
        super().teardown()
