"""A fit that lasts two epochs of two batches."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel


class Validated(BoringModel):
    """Logs the number of steps so far as its accuracy."""

    def validation_step(self, batch: object, batch_idx: int) -> None:
        self.log("val/acc", float(self.trainer.global_step))


@pytest.fixture
def fit(tmp_path: Path):
    """Return a function that fits two epochs of two batches with a callback."""

    def run(callback: L.Callback, strategy: object, **settings: object) -> L.Trainer:
        trainer = L.Trainer(
            strategy=strategy,
            accelerator="cpu" if isinstance(strategy, str) else "auto",
            callbacks=[callback],
            max_epochs=2,
            limit_train_batches=2,
            limit_val_batches=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **{"enable_progress_bar": False, **settings},
        )
        trainer.fit(Validated())
        return trainer

    return run
