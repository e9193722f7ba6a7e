"""Validation, test and prediction where the data is give what they would give on the pooled data."""

from __future__ import annotations

import copy
import csv
import gc
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import R2Score
from torchmetrics.classification import MulticlassAUROC, MulticlassCalibrationError, MulticlassF1Score

from fedlightning.algorithms import Algorithm, Ditto, FedAvg
from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset
from fedlightning.pointers import ObjectPointer
from fedlightning.pointers.tensor import PointerTensor
from fedlightning.strategy import EvaluationFailed, FederatedStrategy
from fedlightning.strategy.reporting import spread_of
from fedlightning.workers import KeepData, RefusedByPolicy, VirtualWorker
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

SHARES = ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16, 17], [18, 19])


class Evaluated(Classifier):
    """Log what is hard to merge: uneven batches, list states, sums and maxima."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.auroc = MulticlassAUROC(3)

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)
        x, y = batch
        self.auroc(self.net(x).softmax(1), y)
        self.log("val/auroc", self.auroc)
        self.log("val/count", float(len(y)), reduce_fx="sum")
        self.log("val/largest", x.max(), reduce_fx="max")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.net(batch[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def at_workers(
    *, policy: Any = None, batch_size: int = 4, private: bool = False
) -> tuple[FederatedDataLoader, list[VirtualWorker]]:
    """Return a loader over twenty samples at four uneven workers."""
    workers = [VirtualWorker(id=name, policy=policy) for name in ("alice", "bob", "carol", "dave")]
    dataset = FederatedDataset.from_dataset(samples(20), workers, Explicit(SHARES), private=private)
    return FederatedDataLoader(dataset, batch_size=batch_size), workers


def pooled() -> DataLoader[Any]:
    """Return the same samples in the same batches, here."""
    batches = [part[i : i + 4] for part in SHARES for i in range(0, len(part), 4)]
    return DataLoader(samples(20), batch_sampler=batches)


def test_metrics_are_those_of_the_pooled_data() -> None:
    module = Evaluated()
    central = trainer().validate(module, pooled(), verbose=False)
    strategy = FederatedStrategy()
    federated = trainer(strategy).validate(module, at_workers()[0], verbose=False)
    assert federated == [pytest.approx(central[0], abs=1e-6)]
    for name in ("val/acc", "val/auroc", "val/count", "val/largest"):
        assert federated[0][name] == central[0][name]


class Pooled(Classifier):
    """Log one metric of each kind that is no mean of the workers' values."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.metrics = nn.ModuleDict(
            {
                "auroc": MulticlassAUROC(3),
                "f1": MulticlassF1Score(3),
                "r2": R2Score(),
                "calibration": MulticlassCalibrationError(3),
            }
        )

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        chances = self.net(x).softmax(1)
        for name, metric in self.metrics.items():
            # Lightning takes whatever is a metric; R2 has a number per sample to predict.
            metric.update(*((chances[:, 0], (y == 0).float()) if name == "r2" else (chances, y)))
            self.log(f"val/{name}", metric)


@pytest.mark.parametrize("name", ["auroc", "f1", "r2", "calibration"])
def test_a_metric_over_all_workers_is_torchmetrics_own_of_the_pooled_samples(name: str) -> None:
    """To the last bit, though the workers hold one to eleven samples, and not all classes."""
    L.seed_everything(0, verbose=False)
    module = Pooled()
    strategy = FederatedStrategy()
    (values,) = trainer(strategy).validate(module, at_workers()[0], verbose=False)
    expected = copy.deepcopy(module.metrics[name])
    expected.reset()
    module.eval()
    with torch.no_grad():
        # In the same batches: a matrix product of other shape may differ in its last bit.
        outputs = [(module.net(x).softmax(1), y) for x, y in pooled()]
    chances, y = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    expected.update(*((chances[:, 0], (y == 0).float()) if name == "r2" else (chances, y)))
    assert values[f"val/{name}"] == float(expected.compute())
    own = [row.metrics[f"val/{name}"] for row in strategy.evaluation_by_worker()]
    assert values[f"val/{name}"] != pytest.approx(sum(own) / len(own))


def validated_fit(workers: int, algorithm: Algorithm, count: int = 48) -> L.Trainer:
    """Train and validate at so many workers, twice."""
    places = [VirtualWorker(id=f"worker-{number:02d}") for number in range(workers)]
    data = FederatedDataset.from_dataset(samples(count), places)
    run = trainer(FederatedStrategy(places, algorithm=algorithm), max_epochs=2)
    run.fit(
        Classifier(dropout=0.0),
        FederatedDataLoader(data, batch_size=4),
        FederatedDataLoader(data, batch_size=4),
    )
    return run


@pytest.mark.parametrize("algorithm", [FedAvg(), Ditto()], ids=["global", "personal"])
def test_the_history_has_a_row_for_each_worker_of_a_validation(algorithm: Algorithm, tmp_path: Path) -> None:
    run = validated_fit(3, algorithm)
    history = run.strategy.history
    last = [row for row in history.workers if row.rounds == len(history)]
    assert [(row.worker, row.samples, row.metrics) for row in last] == [
        (row.worker, row.samples, row.metrics) for row in run.strategy.evaluation_by_worker()
    ]
    assert {row.personal for row in last} == {isinstance(algorithm, Ditto)}
    accuracies = [row.metrics["val/acc"] for row in last]
    spread = history.evaluations[-1].spread
    assert spread == pytest.approx(spread_of([row.metrics for row in last]))
    history.to_csv(tmp_path / "workers.csv", of="workers")
    with (tmp_path / "workers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(history.evaluations)
    assert [float(row["val/acc"]) for row in rows[-3:]] == accuracies
    assert {row["personal"] for row in rows[-3:]} == {str(isinstance(algorithm, Ditto))}


def test_many_workers_are_kept_as_their_spread_alone() -> None:
    run = validated_fit(21, FedAvg())
    history = run.strategy.history
    assert history.workers == ()
    accuracies = [{"val/acc": row.metrics["val/acc"]} for row in run.strategy.evaluation_by_worker()]
    assert len(accuracies) == 21
    expected = spread_of(accuracies)
    assert {name: history.evaluations[-1].spread[name] for name in expected} == pytest.approx(expected)
    assert {name.removeprefix("val/acc_") for name in expected} == {
        *("min", "p10", "median", "std", "low10", "high10", "gap")
    }


def test_several_loaders_are_told_apart_in_the_history() -> None:
    first, workers = at_workers()
    data = FederatedDataset.from_dataset(samples(8), workers[:2])
    run = trainer(FederatedStrategy(3), max_epochs=1)
    run.fit(Evaluated(), loader(), [first, FederatedDataLoader(data, batch_size=4)])
    history = run.strategy.history
    counts = [
        (row.worker, row.samples, name, value)
        for row in history.workers
        for name, value in row.metrics.items()
        if "count" in name
    ]
    assert [(worker, name[-1], value) for worker, samples, name, value in counts if value == samples] == [
        *(("alice", "0", 11), ("bob", "0", 2), ("carol", "0", 5), ("dave", "0", 2)),
        *(("alice", "1", 4), ("bob", "1", 4)),
    ]
    assert {row for row in history.evaluations[-1].spread if "count" in row and row.endswith("gap")} == {
        "val/count/dataloader_idx_0_gap",
        "val/count/dataloader_idx_1_gap",
    }


@pytest.mark.parametrize("algorithm", [FedAvg(), Ditto()], ids=["averaged", "personal"])
@pytest.mark.filterwarnings("ignore:Ditto makes a model of each worker's own")
def test_a_central_set_is_for_the_global_model(algorithm: Algorithm) -> None:
    """Lightning alone, without a federation, gives the module of the end the same values."""
    module, run = fit(FederatedStrategy(4, algorithm=algorithm))
    (central,) = trainer().validate(module, loader(12, shuffle=False), verbose=False)
    assert set(central) == {"val/acc", "val/loss"}
    assert {name: float(run.callback_metrics[name]) for name in central} == central


def test_every_worker_has_values_of_its_own() -> None:
    module = Evaluated()
    strategy = FederatedStrategy()
    trainer(strategy).test(module, at_workers()[0], verbose=False)
    rows = strategy.evaluation_by_worker("test_step")
    assert [(row.worker, row.samples) for row in rows] == [
        ("alice", 11),
        ("bob", 2),
        ("carol", 5),
        ("dave", 2),
    ]
    assert strategy.evaluation_by_worker("validation_step") == []
    for row, share in zip(rows, SHARES, strict=True):
        own = DataLoader(torch.utils.data.Subset(samples(20), share), batch_size=4)
        (central,) = trainer().test(module, own, verbose=False)
        assert row.metrics == pytest.approx(central, abs=1e-6)


def test_a_fit_validates_at_workers_and_trains_as_if_it_validated_here() -> None:
    def run(validation: Any) -> tuple[L.LightningModule, L.Trainer]:
        L.seed_everything(3, verbose=False)
        module, run = Evaluated(), trainer(FederatedStrategy(4), num_sanity_val_steps=2)
        run.fit(module, loader(), validation)
        return module, run

    (here, central), (there, federated) = run(pooled()), run(at_workers()[0])
    assert_same_module(here, there)
    assert federated.callback_metrics["val/auroc"] == central.callback_metrics["val/auroc"]
    assert federated.callback_metrics["val/loss"] == pytest.approx(central.callback_metrics["val/loss"])


def test_predictions_and_data_stay_at_their_workers() -> None:
    federated, workers = at_workers(policy=KeepData(), private=True)
    module = Evaluated()
    module.auroc = MulticlassAUROC(3, thresholds=10)  # without, it would keep every prediction
    run = trainer(FederatedStrategy())
    run.validate(module, federated, verbose=False)
    predictions = run.predict(module, federated)
    assert predictions is not None
    assert [pointer.location.id for pointer in predictions] == ["alice"] * 3 + ["bob"] + ["carol"] * 2 + [
        "dave"
    ]
    assert all(isinstance(pointer, (PointerTensor, ObjectPointer)) for pointer in predictions)
    with pytest.raises(RefusedByPolicy):
        predictions[0].get()
    for worker in workers:
        assert {entry.kind for entry in worker.ledger.entries if entry.direction == "sent"} <= {
            "metrics",
            "metadata",
        }


def test_predictions_on_the_controllers_own_data_come_when_asked_for() -> None:
    module = Evaluated().eval()
    predictions = trainer(FederatedStrategy()).predict(module, at_workers()[0])
    assert predictions is not None
    with torch.no_grad():
        expected = [module(x) for x, _ in pooled()]
    assert all(torch.equal(pointer.get(), y) for pointer, y in zip(predictions, expected, strict=True))


def test_limits_and_several_loaders_mean_what_they_mean_elsewhere() -> None:
    strategy = FederatedStrategy()
    run = trainer(strategy, limit_val_batches=4)
    first, second = run.validate(Evaluated(), [at_workers()[0], pooled()], verbose=False)
    assert first["val/count/dataloader_idx_0"] == 4 + 4 + 3 + 2
    assert second["val/count/dataloader_idx_1"] == 4 + 4 + 3 + 2
    assert [row.worker for row in strategy.evaluation_by_worker()] == ["alice", "bob"]


def modules_at(workers: list[VirtualWorker]) -> int:
    gc.collect()
    return sum(
        isinstance(value, L.LightningModule) for worker in workers for value in worker._objects.values()
    )


def test_no_module_is_left_at_a_worker() -> None:
    federated, workers = at_workers()
    run = trainer(FederatedStrategy(), limit_val_batches=2)
    run.validate(Evaluated(), federated, verbose=False)
    assert modules_at(workers) == 0


def test_evaluation_leaves_the_global_random_stream_alone() -> None:
    class Noisy(Evaluated):
        def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("val/noise", torch.rand(()))

    def run(burn: int) -> float:
        torch.rand(burn)
        before = torch.get_rng_state()
        (values,) = trainer(FederatedStrategy(seed=1)).validate(Noisy(), at_workers()[0], verbose=False)
        del before
        return float(values["val/noise"])

    assert run(1) == run(2)


def test_an_error_names_worker_step_and_batch() -> None:
    class Fails(Evaluated):
        def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
            if len(batch[0]) == 1:
                raise ZeroDivisionError("no")

    federated, workers = at_workers()
    with pytest.raises(
        EvaluationFailed, match=r"'carol', validation_step of batch 1: ZeroDivisionError: no"
    ) as e:
        trainer(FederatedStrategy()).validate(Fails(), federated, verbose=False)
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    del e
    assert modules_at(workers) == 0


def test_hooks_of_batch_transfer_run_at_the_worker() -> None:
    class Doubles(Evaluated):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return [batch[0] * 2, batch[1]]

    L.seed_everything(0, verbose=False)
    module = Doubles()
    (values,) = trainer(FederatedStrategy()).validate(module, at_workers()[0], verbose=False)
    (central,) = trainer().validate(module, pooled(), verbose=False)
    assert values["val/largest"] == central["val/largest"]


def test_datasets_that_are_objects_are_read_there() -> None:
    class Items(TensorDataset):
        """No longer a plain TensorDataset, so that it is read item by item."""

    worker = VirtualWorker(id="alice")
    data = worker.send(Items(*samples(6).tensors))
    federated = FederatedDataLoader(FederatedDataset([data]), batch_size=4)
    (values,) = trainer(FederatedStrategy()).validate(Evaluated(), federated, verbose=False)
    assert values["val/count"] == 6


def test_fit_twice_and_validate_between(tmp_path: Any) -> None:
    strategy = FederatedStrategy(3)
    module, run = fit(strategy, module=Evaluated)
    (first,) = run.validate(module, at_workers()[0], verbose=False)
    (second,) = run.validate(module, at_workers()[0], verbose=False)
    assert first == second
