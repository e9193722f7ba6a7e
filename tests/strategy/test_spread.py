"""A fit whose visits are spread over processes ends in the bits of a fit in one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from fedlightning import FederatedStrategy, Tolerance
from fedlightning.algorithms import (
    IFCA,
    Ditto,
    FedAvg,
    FedNova,
    FedPer,
    Median,
    Mime,
    Scaffold,
)
from fedlightning.algorithms.attacks import ALIE, BadWorkers, LabelFlip
from fedlightning.algorithms.fixed_statistics import FixedAdam
from fedlightning.algorithms.postprocessing import Postprocessing, TopK
from fedlightning.data import IID, FederatedDataLoader, FederatedDataset
from fedlightning.strategy import NotFederatable, RoundFailed
from fedlightning.strategy.processes import crew
from fedlightning.workers import AllowAll, KeepData, Rules, VirtualWorker
from tests.strategy.algorithm_matrix import WAYS, fitted
from tests.strategy.spread_toys import Counts, Dies, Hooked, Locked, Raises, Warms, both
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

pytestmark = pytest.mark.xdist_group("strategy processes")

PLAIN = partial(SGD, lr=0.05)

# What goes to visits and comes back from them: each part of it at least once.
SAME: dict[str, tuple[dict[str, Any], str]] = {
    "manual": ({"algorithm": FedNova()}, "manual"),
    "several optimizers": ({"optimizer_state": "keep"}, "several optimizers"),
    "a loss scale": ({}, "16-bit, loss scale"),
    "accumulation": ({"aggregation": Median()}, "accumulation"),
    "a schedule": ({"algorithm": FedPer(["head"])}, "scheduler"),
    "buffers kept": ({"algorithm": FedAvg(buffers="keep")}, "BatchNorm"),
    "buffers reset": ({"algorithm": FedAvg(buffers="reset")}, "BatchNorm"),
    "extras and what is kept": ({"algorithm": Scaffold(), "optimizer_state": "keep"}, "automatic"),
    "a survey": ({"algorithm": Mime(FixedAdam())}, "automatic"),
    "training aside": ({"algorithm": Ditto()}, "Adam"),
    "processed updates": ({"postprocess": Postprocessing([TopK(0.2)], error_feedback=True)}, "BatchNorm"),
    "bad workers' data": ({"bad_workers": BadWorkers(LabelFlip(3), share=0.5)}, "automatic"),
    "bad workers that agree": (
        {"bad_workers": BadWorkers(ALIE(), share=0.3), "algorithm": IFCA(clusters=2)},
        "automatic",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_bits_are_those_of_one_process(name: str) -> None:
    settings, way = SAME[name]
    one, two = (fitted({**settings, "processes": count}, WAYS[way], even=False) for count in (None, 2))
    assert all(map(torch.equal, one, two))


def test_so_is_all_that_is_told_of_it() -> None:
    (module, strategy, memo), (other, spread, other_memo) = both()
    assert_same_module(module, other)
    assert memo.entries == other_memo.entries
    assert strategy.history.visits == spread.history.visits
    assert list(strategy.history) == list(spread.history)


@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()], ids=["updates", "and extras"])
def test_every_ledger_has_the_same_entries(algorithm: Any) -> None:
    ledgers: list[Any] = []

    def train() -> FederatedDataLoader:
        workers = [VirtualWorker(id=f"w{n}", policy=KeepData()) for n in range(3)]
        data = FederatedDataset.from_dataset(samples(20), workers, private=True)
        ledgers.append([worker.ledger for worker in workers])
        return FederatedDataLoader(data, batch_size=4, shuffle=True)

    both(partial(Classifier, PLAIN), train=train, workers=None, algorithm=algorithm)
    for one, two in zip(*ledgers, strict=True):
        assert sorted(map(str, one.rows())) == sorted(map(str, two.rows()))
        assert any(row["item"].endswith("train_locally") for row in two.rows())


def test_visits_go_by_what_changes_between_rounds() -> None:
    (module, _, _), (other, _, _) = both(Warms, workers=4, rounds_per_epoch=2)
    assert_same_module(module, other)
    assert other.scale == 2.0


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    def part(count: int | None, epochs: int, path: Any = None) -> L.LightningModule:
        torch.manual_seed(3)
        module = Classifier(PLAIN)
        strategy = FederatedStrategy(4, seed=0, optimizer_state="keep", processes=count, algorithm=Scaffold())
        run = trainer(strategy, max_epochs=epochs)
        run.fit(module, loader(40), ckpt_path=path)
        run.save_checkpoint(tmp_path / f"{count}-{epochs}.ckpt")
        return module

    whole = part(None, 2)
    part(2, 1)
    assert_same_module(part(None, 2, tmp_path / "2-1.ckpt"), whole)
    part(None, 1)
    assert_same_module(part(2, 2, tmp_path / "None-1.ckpt"), whole)


def marked() -> DataLoader[Any]:
    """Return data of which one worker has a sample that `Raises` knows."""
    last_worker = int(IID().split(samples(40), 4, 0).indices[-1][0])
    x, y = (tensor.clone() for tensor in samples(40).tensors)
    x[last_worker, 0] = 7.0
    return DataLoader(TensorDataset(x, y), batch_size=5)


def test_a_visit_that_raises_is_named_and_undone() -> None:
    L.seed_everything(3, verbose=False)
    module = Raises()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(RoundFailed) as caught:
        trainer(FederatedStrategy(4, seed=0, processes=2)).fit(module, marked())
    with pytest.raises(RoundFailed) as expected:
        trainer(FederatedStrategy(4, seed=0)).fit(Raises(), marked())
    assert isinstance(caught.value, ZeroDivisionError)
    assert str(caught.value) == str(expected.value)
    assert "in act" in str(caught.value.__cause__.__cause__)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_visit_that_raises_may_be_left_out() -> None:
    tolerance = Tolerance(on_error="skip", retries=1)
    (module, strategy, _), (other, spread, _) = both(Raises, workers=4, train=marked, tolerance=tolerance)
    assert_same_module(module, other)
    assert strategy.history[0].skipped
    assert [record.skipped for record in strategy.history] == [record.skipped for record in spread.history]


def spoilt() -> DataLoader[Any]:
    data = samples(40)
    data.tensors[0][3] = torch.inf
    return DataLoader(data, batch_size=4)


def test_a_visit_that_is_not_finite_may_be_left_out() -> None:
    settings: dict[str, Any] = {"tolerance": Tolerance(on_nonfinite="skip"), "optimizer_state": "keep"}
    (module, strategy, _), (other, spread, _) = both(workers=4, train=spoilt, **settings)
    assert_same_module(module, other)
    assert len(strategy.history[0].skipped) == len(spread.history[0].skipped) == 1


def test_workers_with_rules_of_their_own_are_refused() -> None:
    workers = [VirtualWorker(id=name, policy=Rules(otherwise=AllowAll())) for name in ("alice", "bob")]
    with pytest.raises(NotFederatable, match="'alice' has the policy"):
        fit(FederatedStrategy(workers, seed=0, processes=2))


def test_a_callback_that_acts_on_steps_is_refused() -> None:
    class Acts(L.Callback):
        def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None: ...

    with pytest.raises(NotFederatable, match=r"Acts\.on_after_backward"):
        fit(FederatedStrategy(4, processes=2), callbacks=[Acts()])


@pytest.mark.parametrize(
    ("make", "says"), [(Locked, "cannot pickle"), (Hooked, "net.0.weight has a hook"), (Counts, "own steps")]
)
def test_what_cannot_go_there_and_back_is_refused(make: Any, says: str) -> None:
    with pytest.raises(NotFederatable, match=says):
        fit(FederatedStrategy(4, seed=0, processes=2), module=make)


def test_a_process_that_ends_is_told_and_takes_the_others_along() -> None:
    L.seed_everything(3, verbose=False)
    module, strategy = Dies(), FederatedStrategy(4, seed=0, processes=2)
    run = trainer(strategy)
    hired: list[Any] = []

    class Looks(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            hired.extend(strategy._run.spread.open().processes)

    run.callbacks.append(Looks())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(RoundFailed, match="ended by signal 9") as caught:
        run.fit(module, marked())
    assert caught.value.kind == "lost"
    assert caught.value.round == 0
    assert [process.alive for process in hired] == [False, False]
    assert not crew._idle
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
