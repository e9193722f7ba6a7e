"""Rounds in which nobody takes part, or few: they count, and change nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from typing_extensions import override

from fedlightning import Tolerance
from fedlightning.algorithms import (
    APFL,
    IFCA,
    Algorithm,
    Ditto,
    FedBABU,
    FedDyn,
    FedNova,
    FedPer,
    FedProx,
    MimeLite,
    Moon,
    OnlineWorkers,
    PerFedAvg,
    PoissonSampling,
    Scaffold,
)
from fedlightning.strategy import CohortTooSmall
from fedlightning.workers import VirtualWorker
from tests.strategy.sampling_toys import EVERY_OTHER, NAMES, Plain, PlainSGD, cohorts_of, fit, strategy

EMPTY_ROUNDS: dict[str, dict[str, Any]] = {
    "averaged": {"local_steps": 2},
    "gradients": {"local_steps": 1},
    "kept, Adam at the server": {
        "optimizer_state": "keep",
        "server_optimizer": partial(torch.optim.Adam, lr=0.01),
    },
    "trusted": {"aggregator": VirtualWorker(id="trusted")},
    "sequential": {"update": "sequential", "cohort_size": 1},
}

ALGORITHMS: list[Algorithm] = [
    APFL(alpha=0.5),
    IFCA(clusters=2),
    Ditto(),
    FedBABU(head=["net.2"]),
    FedDyn(alpha=0.5),
    FedNova(),
    FedPer(personal=["net.2"]),
    FedProx(mu=0.5),
    MimeLite(),
    Moon("net.0"),
    PerFedAvg(alpha=0.1),
    Scaffold(),
]


class Tensors(L.Callback):
    def __init__(self) -> None:
        self.after: list[dict[str, Tensor]] = []

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.after.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})


@pytest.mark.parametrize("settings", EMPTY_ROUNDS.values(), ids=EMPTY_ROUNDS)
def test_an_empty_round_counts_and_changes_nothing(settings: dict[str, Any]) -> None:
    tensors = Tensors()
    # Without a metric: Lightning counts its updates, one of which an empty round would make.
    _, run = fit(
        strategy(EVERY_OTHER, rounds_per_epoch=4, **settings), module=Plain, callbacks=[tensors], max_epochs=1
    )
    assert run.global_step == 4
    assert [bool(cohort) for cohort in cohorts_of(run.strategy.history)] == [True, False, True, False]
    for full, empty in (tensors.after[:2], tensors.after[2:]):
        assert all(torch.equal(full[name], empty[name]) for name in full)
    assert not all(torch.equal(tensors.after[1][name], tensors.after[2][name]) for name in tensors.after[1])


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_an_empty_round_leaves_what_algorithms_keep_alone(algorithm: Algorithm) -> None:
    _, run = fit(
        strategy(EVERY_OTHER, rounds_per_epoch=4, local_steps=2, algorithm=algorithm),
        module=PlainSGD,
        callbacks=[tensors := Tensors()],
        max_epochs=1,
    )
    assert [bool(cohort) for cohort in cohorts_of(run.strategy.history)] == [True, False, True, False]
    for full, empty in (tensors.after[:2], tensors.after[2:]):
        assert all(torch.equal(full[name], empty[name]) for name in full)


def test_cohorts_that_are_too_small_stop_the_run_if_asked_to() -> None:
    with pytest.raises(CohortTooSmall, match=r"round 1: 0 of 0 workers .*min_cohort=2.*No more of them take"):
        fit(strategy(EVERY_OTHER, tolerance=Tolerance(min_cohort=2)))
    with pytest.raises(CohortTooSmall, match="round 0: 1 of 1 workers"):
        fit(strategy(OnlineWorkers([NAMES[:1]]), tolerance=Tolerance(min_cohort=2)))


def test_a_poisson_run_has_cohorts_of_chance_sizes() -> None:
    _, run = fit(strategy(PoissonSampling(), rounds_per_epoch=20, local_steps=1), max_epochs=1)
    assert {len(cohort) for cohort in cohorts_of(run.strategy.history)} >= {0, 1, 2, 3}
    assert run.global_step == 20
