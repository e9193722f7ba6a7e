"""A fit over workers in other processes ends in the bits of the same fit over virtual workers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fedlightning.algorithms import FedBuff, PowerOfChoice, Stragglers, WorkerDropout
from fedlightning.data import FederatedDataLoader, FederatedDataset
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import KeepData, UnsendableError, VirtualWorker, Worker
from tests.strategy.conftest import MakeWorkers
from tests.strategy.remote_toys import Forgetful, Joined, OwnStep, StepsSchedulers, Travelling

pytestmark = pytest.mark.xdist_group("workers elsewhere")
NAMES = ("ann", "bob", "carl")


@pytest.fixture
def processes(workers_elsewhere: MakeWorkers) -> Callable[..., list[Worker]]:
    return partial(workers_elsewhere, *NAMES)


def test_processes_of_loaders_may_have_been_seeded(
    processes: Callable[..., list[Worker]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Lightning has loaders call for that is code of its own, which no worker needs."""
    monkeypatch.setenv("PL_SEED_WORKERS", "1")
    fit(processes())


def fit(
    workers: list[Worker], make_module: Callable[[], L.LightningModule] = Travelling, **settings: Any
) -> Any:
    trainer_settings = settings.pop("trainer", {})
    torch.manual_seed(0)
    module = make_module()
    data = TensorDataset(torch.randn(31, 4), torch.randint(0, 3, (31,)))
    train: Any = DataLoader(data, batch_size=4, shuffle=True)
    if make_module is Joined:
        train = {"a": train, "b": DataLoader(data, batch_size=3, shuffle=True)}
    trainer = L.Trainer(
        max_epochs=2,
        strategy=FederatedStrategy(workers=workers, seed=7, **settings),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer_settings,
    )
    trainer.fit(module, train)
    return module.state_dict(), trainer.callback_metrics, trainer.optimizers[0].state_dict()


CASES: list[dict[str, Any]] = [
    {"update": "averaged", "local_epochs": 1},
    {"update": "averaged", "local_steps": 1},
    {"update": "sequential", "local_steps": 2, "optimizer_state": "travel"},
    {
        "update": "averaged",
        "local_epochs": 1,
        "optimizer_state": "keep",
        "trainer": {"gradient_clip_val": 0.1},
    },
    {"update": "averaged", "local_steps": 3, "trainer": {"precision": "bf16-mixed"}},
    {"local_epochs": 1, "cohort_size": 2, "sampling": PowerOfChoice(3, batches=2)},
    {"local_epochs": 2, "participation": [Stragglers(0.5), WorkerDropout(rate=0.3)]},
    {"local_epochs": 1, "asynchronous": FedBuff(buffer=2)},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_bits_are_those_of_virtual_workers(
    case: dict[str, Any], processes: Callable[..., list[Worker]]
) -> None:
    expected = fit([VirtualWorker(id=name) for name in NAMES], **case)
    found = fit(processes(), **case)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_manual_optimization_has_the_same_bits(processes: Callable[..., list[Worker]]) -> None:
    case = {"update": "averaged", "local_epochs": 1}
    expected = fit([VirtualWorker(id=name) for name in NAMES], partial(Travelling, manual=True), **case)
    found = fit(processes(), partial(Travelling, manual=True), **case)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["MultiStepLR", "OneCycleLR", "ReduceLROnPlateau"])
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_schedulers_stepped_by_hand_go_along(
    update: str, kind: str, processes: Callable[..., list[Worker]]
) -> None:
    case: dict[str, Any] = {"update": update, "local_steps": 2}
    make = partial(StepsSchedulers, kind)
    expected = fit([VirtualWorker(id=name) for name in NAMES], make, **case)
    found = fit(processes(), make, **case)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_scheduler_with_a_function_is_refused_with_the_remedy(
    processes: Callable[..., list[Worker]],
) -> None:
    with pytest.raises(UnsendableError, match=r"LambdaLR is stepped by the module.*or virtual workers"):
        fit(processes(), partial(StepsSchedulers, "LambdaLR"))


@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_a_modules_own_step_is_taken_there(update: str, processes: Callable[..., list[Worker]]) -> None:
    case: dict[str, Any] = {"update": update, "local_steps": 2}
    expected = fit([VirtualWorker(id=name) for name in NAMES], OwnStep, **case)
    found = fit(processes(), OwnStep, **case)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_several_loaders_are_combined_and_own_logs_called_there(
    processes: Callable[..., list[Worker]],
) -> None:
    case = {"update": "averaged", "local_steps": 2}
    expected = fit([VirtualWorker(id=name) for name in NAMES], Joined, **case)
    found = fit(processes(), Joined, **case)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert "own/train/loss" in found[1]


def test_the_data_stays(processes: Callable[..., list[Worker]]) -> None:
    workers = processes(policy=KeepData())
    fit(workers, update="averaged", local_epochs=1)
    kinds = {entry.kind for entry in workers[0].ledger.entries if entry.direction == "sent"}
    assert "data" not in kinds
    assert kinds >= {"module", "metrics"}


def test_a_module_that_is_not_listed_is_refused_with_the_remedy(
    processes: Callable[..., list[Worker]],
) -> None:
    with pytest.raises(UnsendableError, match=r"modules=\['tests.strategy.remote_toys'\]"):
        fit(processes(modules=[]))


def test_a_module_without_hyperparameters_is_refused_with_the_remedy(
    processes: Callable[..., list[Worker]],
) -> None:
    with pytest.raises(UnsendableError, match=r"\(width\).*self\.save_hyperparameters\(\)"):
        fit(processes(), partial(Forgetful, 3))


class WatchesSteps(L.Callback):
    def on_before_optimizer_step(self, *args: Any) -> None:
        """Do nothing."""


def test_a_callback_that_acts_within_local_steps_is_refused(processes: Callable[..., list[Worker]]) -> None:
    with pytest.raises(UnsendableError, match=r"WatchesSteps\.on_before_optimizer_step.*virtual workers"):
        fit(processes(), trainer={"callbacks": [WatchesSteps()]})


def test_evaluation_where_the_data_is_has_the_same_values(processes: Callable[..., list[Worker]]) -> None:
    data = [(torch.randn(size, 4), torch.randint(0, 3, (size,))) for size in (5, 9, 4)]

    def validate(workers: list[Worker]) -> Any:
        parts = {
            worker: (worker.register(x), worker.register(y))
            for worker, (x, y) in zip(workers, data, strict=True)
        }
        torch.manual_seed(0)
        trainer = L.Trainer(
            strategy=FederatedStrategy(workers=workers, seed=7),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        loader = FederatedDataLoader(FederatedDataset(parts), batch_size=3)
        return trainer.validate(Travelling(), loader, verbose=False)

    assert validate(processes()) == validate([VirtualWorker(id=name) for name in NAMES])
