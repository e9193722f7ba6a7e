"""A module that fails in round 1, on a batch that is not full, until it is repaired."""

from __future__ import annotations

from typing import Any, ClassVar

from fedlightning.examples import DigitsClassifier


class Fails(DigitsClassifier):
    repaired: ClassVar[bool] = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.trainer.strategy.current_plan.round == 1 and len(batch[0]) < 32 and not self.repaired:
            raise ArithmeticError(f"{float(batch[0].sum()):.4f} is too much")
        return super().training_step(batch, batch_idx)
