"""A fit goes on from a checkpoint of Lightning's, with us and without."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer

UPDATES = ["averaged", "sequential"]


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    "settings",
    [{"local_steps": 1}, {"local_steps": 2}, {"optimizer_state": "keep"}],
    ids=["gradients", "steps", "keep"],
)
def test_a_run_that_goes_on_from_an_epochs_checkpoint_ends_in_the_same_bits(
    update: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    def strategy() -> FederatedStrategy:
        return FederatedStrategy(3, update=update, cohort_size=2, seed=0, **settings)

    whole, _ = fit(strategy(), max_epochs=4)
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(strategy(), max_epochs=2, callbacks=[saver], enable_checkpointing=True)
    resumed = Classifier()
    run = trainer(strategy(), max_epochs=4)
    run.fit(resumed, loader(), loader(12, shuffle=False), ckpt_path=saver.last_model_path)
    assert [record.round for record in run.strategy.history] == list(range(run.global_step))
    assert_same_module(whole, resumed)


def test_a_server_optimizer_and_its_scheduler_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    def strategy() -> FederatedStrategy:
        return FederatedStrategy(
            3,
            seed=0,
            server_optimizer=partial(torch.optim.Adam, lr=0.01),
            server_scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
        )

    whole, _ = fit(strategy(), max_epochs=4)
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(strategy(), max_epochs=2, callbacks=[saver], enable_checkpointing=True)
    resumed = Classifier()
    trainer(strategy(), max_epochs=4).fit(
        resumed, loader(), loader(12, shuffle=False), ckpt_path=saver.last_model_path
    )
    assert_same_module(whole, resumed)


def test_an_ordinary_trainer_loads_our_checkpoint(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(FederatedStrategy(2), callbacks=[saver], enable_checkpointing=True)
    module = Classifier()
    trainer(max_epochs=3).fit(module, loader(), ckpt_path=saver.last_model_path)
