"""A fit of Lightning's Trainer counts rounds: its steps, epochs and limits, and who is asked for by name."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from fedlightning.algorithms import Plan
from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer

UPDATES = ["averaged", "sequential"]


@pytest.mark.parametrize("name", ["federated", "federated_averaged", "federated_sequential"])
def test_registered_names(name: str) -> None:
    run = trainer(name)
    assert isinstance(run.strategy, FederatedStrategy)
    assert run.strategy.settings.update == ("sequential" if name == "federated_sequential" else "averaged")
    run.fit(Classifier(), loader(40))
    assert len(run.strategy.federation.members) == 10


@pytest.mark.parametrize("update", UPDATES)
def test_global_step_counts_rounds(update: Any) -> None:
    strategy = FederatedStrategy(3, update=update, rounds_per_epoch=4)
    _, run = fit(strategy, max_epochs=2)
    assert run.global_step == 8
    assert [record.round for record in strategy.history] == list(range(8))
    assert all(len(record.workers) == (3 if update == "averaged" else 1) for record in strategy.history)


@pytest.mark.parametrize(
    ("limits", "rounds"), [({"max_steps": 3, "max_epochs": -1}, 3), ({"fast_dev_run": 2}, 2)]
)
def test_limits_count_rounds(limits: dict[str, Any], rounds: int) -> None:
    _, run = fit(FederatedStrategy(2, rounds_per_epoch=4), **limits)
    assert run.global_step == rounds


class NotesBatches(Classifier):
    """Keeps the sum of every batch that it trains on."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.sums.append(batch[0].sum().item())
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("work", [{"local_steps": 1}, {"local_steps": 2}, {}])
@pytest.mark.parametrize("who", [{"workers": 1}, {"workers": 3}, {"workers": 3, "cohort_size": 2}])
@pytest.mark.parametrize("update", UPDATES)
def test_overfitting_sees_the_same_batches_in_every_epoch(
    update: Any, who: dict[str, Any], work: dict[str, Any]
) -> None:
    module, run = fit(
        FederatedStrategy(update=update, rounds_per_epoch=3, **who, **work),
        module=NotesBatches,
        overfit_batches=2,
        max_epochs=3,
    )
    assert isinstance(module, NotesBatches)
    assert run.global_step == 6
    first, second, third = torch.tensor(module.sums).chunk(3)
    assert first.tolist() == second.tolist() == third.tolist()


def test_the_current_plan_is_data_free() -> None:
    strategy = FederatedStrategy(2)
    fit(strategy)
    assert isinstance(strategy.current_plan, Plan)
    assert repr(strategy.current_plan) == "Plan(round=1, workers=['worker-0', 'worker-1'])"


def test_a_second_fit_is_a_run_of_its_own() -> None:
    strategy = FederatedStrategy(3, seed=0)
    first, run = fit(strategy)
    L.seed_everything(3, verbose=False)
    second = Classifier()
    run.fit_loop.epoch_progress.reset()
    run.fit(second, loader())
    assert [record.round for record in strategy.history] == [0, 1]
    assert_same_module(first, second)
