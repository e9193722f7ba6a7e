"""Bad input is refused before any work; each message says what was expected, what came, and what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from fedlightning import Tolerance
from fedlightning.algorithms import (
    FedBuff,
    Median,
    OverSelection,
    PoissonSampling,
    SimulatedClock,
    Stragglers,
    WorkerDropout,
)
from fedlightning.algorithms.attacks import ALIE, BadWorkers
from fedlightning.algorithms.postprocessing import Sign
from fedlightning.data import Dirichlet, Explicit, FederatedDataLoader, FederatedDataset, Natural
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, fit, loader, samples, trainer

Says = tuple[str, ...]
"""What a message must hold, in any order: what was expected, what came, and what to do."""


class Untouched(Classifier):
    """Fails the test that lets it work."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        pytest.fail("a training step was taken")


def refused(attempt: Callable[[], Any], kind: type[Exception], says: Iterable[str]) -> None:
    """Assert that an attempt is refused with a message that says all of ``says``."""
    with pytest.raises(kind) as caught:
        attempt()
    missing = [part for part in says if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


COUNTS = ("cohort_size", "rounds_per_epoch", "local_steps", "local_epochs", "processes")
BAD_COUNTS: list[tuple[dict[str, Any], type[Exception], Says]] = [
    *(({name: 0}, ValueError, (name, "at least 1", "got 0", "Leave it out")) for name in COUNTS),
    *(({name: -1}, ValueError, (name, "at least 1", "got -1", "Leave it out")) for name in COUNTS),
    *(({name: 1.5}, TypeError, (name, "a whole number of at least 1", "got 1.5")) for name in COUNTS),
    *(({name: True}, TypeError, (name, "a whole number of at least 1", "got True")) for name in COUNTS),
    ({"workers": 0}, ValueError, ("workers=0", "at least one worker", "Give a number")),
    ({"workers": -2}, ValueError, ("workers=-2", "at least one worker", "Give a number")),
    ({"workers": []}, ValueError, ("workers=[]", "at least one worker", "a list of workers")),
    ({"workers": 2.5}, TypeError, ("a number of virtual workers or a list", "got 2.5")),
    ({"workers": True}, TypeError, ("a number of virtual workers or a list", "got True")),
]
BAD_SETTINGS: list[tuple[dict[str, Any], type[Exception], Says]] = [
    (
        {"processes": 2, "update": "sequential"},
        ValueError,
        ("processes=2", "starts where", "leave processes"),
    ),
    ({"update": "avg"}, ValueError, ("update", "'averaged', 'sequential'", "got 'avg'")),
    ({"local_steps": 2, "local_epochs": 3}, ValueError, ("=2", "=3", "both given", "Leave one of them out")),
    ({"workers": "bob"}, TypeError, ("Worker objects", "got 'b'", "VirtualWorker(id='bob')")),
    (
        {"workers": 3, "cohort_size": 4},
        ValueError,
        ("cohort_size=4", "number of workers (3)", "at most 3"),
    ),
    ({"seed": "5"}, TypeError, ("seed", "a whole number, or None", "got '5'")),
    ({"seed": 1.5}, TypeError, ("seed", "a whole number, or None", "got 1.5")),
    ({"seed": True}, TypeError, ("seed", "a whole number, or None", "got True")),
    ({"optimizer_state": "lose"}, ValueError, ("'reset', 'keep', 'travel'", "got 'lose'")),
    ({"optimizer_state": "travel"}, ValueError, ("'travel'", "update='averaged'", "Use 'reset' or 'keep'")),
    ({"partition": "iid"}, TypeError, ("a Partitioner", "got 'iid'", "Dirichlet(alpha=0.3)")),
    ({"tolerance": "skip"}, TypeError, ("a fedlightning.Tolerance", "got 'skip'")),
    ({"aggregation": "median"}, TypeError, ("a rule", "got 'median'", "Median()")),
    ({"aggregator": "bob"}, TypeError, ("a Worker", "got 'bob'", "VirtualWorker(id='trusted')")),
    ({"server_optimizer": 1.0}, TypeError, ("build an optimizer", "got 1.0", "functools.partial")),
    ({"algorithm": "fedavg"}, TypeError, ("algorithm must be", "got 'fedavg'", "FedProx(mu=0.01)")),
    ({"server_scheduler": 1.0}, TypeError, ("build a scheduler", "got 1.0", "functools.partial")),
    (
        {"server_scheduler": partial(torch.optim.lr_scheduler.LinearLR, total_iters=3)},
        ValueError,
        ("server_scheduler is given", "no server_optimizer", "functools.partial(torch.optim.SGD, lr=1.0)"),
    ),
    (
        {"server_optimizer": torch.optim.SGD, "server_scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau},
        ValueError,
        ("no metric", "ReduceLROnPlateau", "configure_optimizers"),
    ),
    (
        {"update": "sequential", "server_optimizer": torch.optim.SGD},
        ValueError,
        ("server_optimizer is given", "no average", "Use update='averaged'"),
    ),
    (
        {"update": "sequential", "aggregation": Median()},
        ValueError,
        ("aggregation is given", "nothing to combine", "Use update='averaged'"),
    ),
    ({"participation": 0.9}, TypeError, ("participation must be", "Stragglers(share=0.5)", "got 0.9")),
    (
        {"update": "sequential", "participation": Stragglers(0.5)},
        ValueError,
        ("participation=Stragglers(", "update='sequential'", "Use update='averaged'"),
    ),
    (
        {"workers": [VirtualWorker(id=name) for name in "ab"], "participation": WorkerDropout({"c": 0.1})},
        ValueError,
        ("participation names ['c']", "no such workers", "'a', 'b'"),
    ),
    ({"clock": 3.0}, TypeError, ("clock must be", "SimulatedClock(seconds_per_step=0.1)", "got 3.0")),
    (
        {"participation": OverSelection(), "cohort_size": 2},
        ValueError,
        ("OverSelection(extra=0.3", "there is no clock", "Use clock=SimulatedClock("),
    ),
    (
        {"participation": OverSelection(), "clock": SimulatedClock()},
        ValueError,
        ("extra=0.3 is a share of cohort_size", "Give a cohort_size"),
    ),
    ({"asynchronous": "fedbuff"}, TypeError, ("asynchronous must be", "FedBuff(buffer=10)", "got 'fedbuff'")),
    (
        {"asynchronous": FedBuff(buffer=4), "workers": 9, "cohort_size": 3},
        ValueError,
        ("buffer=4", "at most 3 workers are under way", "a larger cohort_size"),
    ),
    *(
        (
            {"asynchronous": FedBuff(buffer=2), "workers": 9} | other,
            ValueError,
            (*says, "does not go with asynchronous=FedBuff(", "Leave one of the two out"),
        )
        for other, says in (
            ({"update": "sequential"}, ("update='sequential'", "nobody under way")),
            ({"aggregator": VirtualWorker(id="trusted")}, ("aggregator=", "from one start")),
            ({"participation": Stragglers(0.5)}, ("participation=", "rounds of a cohort")),
            ({"postprocess": [Sign()]}, ("postprocess=", "undone from one start")),
            ({"downlink": [Sign()]}, ("downlink=", "one version for all")),
            ({"sampling": PoissonSampling(0.5)}, ("sampling=PoissonSampling", "rounds of a cohort")),
        )
    ),
    (
        {"asynchronous": FedBuff(buffer=2), "workers": 9, "bad_workers": BadWorkers(ALIE(), share=0.2)},
        ValueError,
        ("bad_workers=", "agree within a cohort", "an attack of single workers"),
    ),
    (
        {"tolerance": Tolerance(min_cohort=3), "cohort_size": 2},
        ValueError,
        ("min_cohort=3", "cohort_size=2", "Lower the one or raise the other"),
    ),
]


@pytest.mark.parametrize(("settings", "kind", "says"), BAD_COUNTS + BAD_SETTINGS)
def test_settings_are_refused_when_the_strategy_is_made(
    settings: dict[str, Any], kind: type[Exception], says: Says
) -> None:
    refused(lambda: FederatedStrategy(**settings), kind, says)


def test_a_setting_that_does_not_exist_is_named() -> None:
    refused(lambda: FederatedStrategy(n_workers=3), TypeError, ("n_workers",))


def test_duplicate_worker_ids_are_refused() -> None:
    twice = [VirtualWorker(id="bob"), VirtualWorker(id="bob")]
    says = ("the id 'bob' more than once", "Give each worker an id of its own")
    refused(lambda: FederatedStrategy(twice), ValueError, says)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"retries": -1}, ("retries", "at least 0", "got -1")),
        ({"retries": 1.5}, ("retries", "a whole number", "got 1.5")),
        ({"min_cohort": -1}, ("min_cohort", "at least 0", "got -1")),
        ({"on_error": "ignore"}, ("on_error", "'stop', 'skip'", "got 'ignore'")),
    ],
)
def test_a_tolerance_is_refused_when_it_is_made(settings: dict[str, Any], says: Says) -> None:
    refused(lambda: Tolerance(**settings), ValueError, says)


def test_the_share_of_a_partition_is_refused_when_it_is_made() -> None:
    refused(lambda: Dirichlet(alpha=-0.3), ValueError, ("alpha=-0.3", "positive"))


def test_a_strategy_of_two_trainers_is_refused() -> None:
    strategy = FederatedStrategy(2)
    trainer(strategy)
    says = ("belongs to another Trainer", "Make a new one for each Trainer")
    refused(lambda: trainer(strategy), NotFederatable, says)


class Unnumbered(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(samples())


class WithoutLength(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return samples()[index]


def at_workers(*sizes: int) -> FederatedDataLoader:
    data = samples(sum(sizes))
    partition = Explicit(list(torch.arange(len(data)).split(list(sizes))))
    workers = [VirtualWorker(id=f"hospital-{number}") for number in range(len(sizes))]
    return FederatedDataLoader(FederatedDataset.from_dataset(data, workers, partition), batch_size=4)


BAD_DATA: dict[str, tuple[dict[str, Any], Callable[[], Any], type[Exception], Says]] = {
    "more workers than samples": (
        {"workers": 31},
        loader,
        ValueError,
        ("31", "30 samples", "at most 30 workers"),
    ),
    "more workers than samples, if none are asked for": (
        {},
        partial(loader, 9),
        ValueError,
        ("10", "9 samples", "at most 9 workers"),
    ),
    "a cohort larger than the usual number of workers": (
        {"cohort_size": 11},
        loader,
        ValueError,
        ("cohort_size=11", "number of workers (10)", "at most 10"),
    ),
    "a cohort larger than the workers that the data names": (
        {"cohort_size": 4, "partition": Natural(torch.arange(30) % 3)},
        loader,
        ValueError,
        ("cohort_size=4", "number of workers (3)", "at most 3"),
    ),
    "a cohort larger than the workers of federated data": (
        {"cohort_size": 3},
        partial(at_workers, 20, 10),
        ValueError,
        ("cohort_size=3", "number of workers (2)", "at most 2"),
    ),
    "other workers than those of federated data": (
        {"workers": 3},
        partial(at_workers, 20, 10),
        ValueError,
        ("workers=3", "['hospital-0', 'hospital-1']", "Leave workers out"),
    ),
    "shards without a full batch": (
        {"workers": 10},
        partial(loader, drop_last=True),
        ValueError,
        ("no full batch", "smaller than the batch size", "drop_last=False"),
    ),
    "an iterable dataset at several workers": (
        {"workers": 2},
        lambda: DataLoader(Unnumbered(), batch_size=4),
        TypeError,
        ("Unnumbered is an IterableDataset", "cannot be divided", "Give a map-style dataset"),
    ),
    "an iterable dataset without a length, in epochs": (
        {"workers": 1},
        lambda: DataLoader(Unnumbered(), batch_size=4),
        NotFederatable,
        ("no length", "how long a local epoch is", "local_steps=...", "a loader with __len__"),
    ),
    "a dataset without a length": (
        {"workers": 2},
        lambda: DataLoader(WithoutLength(), batch_size=4),
        TypeError,
        ("WithoutLength", "needs __len__ and __getitem__", "divided over workers"),
    ),
    "an empty dataset": (
        {"workers": 2},
        lambda: DataLoader([], batch_size=4),
        ValueError,
        ("list", "no samples", "at least one sample per worker"),
    ),
    "no loader": (
        {"workers": 2},
        lambda: [[1, 2], [3]],
        TypeError,
        ("list is no DataLoader", "Give a torch.utils.data.DataLoader"),
    ),
    "a sampler of one's own": (
        {"workers": 2},
        lambda: DataLoader(samples(), batch_size=2, sampler=WeightedRandomSampler([1.0] * 30, 30)),
        TypeError,
        ("sampler=WeightedRandomSampler", "only its own", "Use shuffle=True"),
    ),
    "no batches": (
        {"workers": 2},
        lambda: DataLoader(samples(), batch_size=None),
        ValueError,
        ("batch_size=None", "without batches", "Give a batch_size"),
    ),
    "a partition of another dataset": (
        {"workers": 2, "partition": Explicit([range(20), range(20, 40)])},
        loader,
        ValueError,
        ("[0, 30)", "0 to 39", "another dataset"),
    ),
}


@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("name", BAD_DATA)
def test_data_is_refused_before_any_work(name: str, update: Any) -> None:
    settings, train, kind, says = BAD_DATA[name]
    module = Untouched()
    before = copy.deepcopy(module.state_dict())
    strategy = FederatedStrategy(update=update, **settings)
    refused(lambda: fit(strategy, module=module, train=train()), kind, says)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert len(strategy.history) == 0


def test_nothing_is_left_at_workers_when_data_is_refused() -> None:
    workers = [VirtualWorker(id=str(number)) for number in range(31)]
    refused(lambda: fit(FederatedStrategy(workers), module=Untouched()), ValueError, ("31",))
    assert not any(map(len, workers))


def test_several_devices_are_refused() -> None:
    says = ("devices=2", "one device", "Use devices=1", "FederatedStrategy(workers=...)")
    refused(lambda: fit(FederatedStrategy(2), module=Untouched(), devices=2), NotFederatable, says)


class OtherTree(pytorch_lightning.LightningModule):
    """A module of the package that is imported as ``pytorch_lightning``."""


def test_a_module_of_the_other_class_tree_is_refused() -> None:
    says = ("OtherTree", "pytorch_lightning", "lightning.pytorch", "import lightning as L")
    attempt = partial(trainer(FederatedStrategy(2)).fit, OtherTree(), loader())
    refused(attempt, TypeError, says)


BASE: dict[str, Any] = {"workers": 3, "seed": 3, "local_steps": 2}
BY_HAND = [range(10), range(10, 20), range(20, 30)]
OTHER_FEDERATIONS: dict[str, tuple[dict[str, Any], dict[str, Any], Says]] = {
    "update": (
        {},
        {"update": "sequential", "optimizer_state": "reset"},
        ("update is 'averaged'", "'sequential'"),
    ),
    "number of workers": ({}, {"workers": 2}, ("samples is", "'worker-2'")),
    "names of workers": (
        {},
        {"workers": [VirtualWorker(id=name) for name in "abc"]},
        ("samples is", "'worker-0'", "'a'"),
    ),
    "sizes of the parts": (
        {},
        {"partition": Explicit([range(4), range(4, 9), range(9, 30)])},
        ("samples is", "10", "21"),
    ),
    "samples of the parts": ({}, {"partition": Explicit(BY_HAND)}, ("partition is '",)),
    "seed": ({}, {"seed": 2}, ("seed=3", "seed=2")),
    "local steps": ({}, {"local_steps": 4}, ("local_steps is 2", "has 4")),
    "local epochs": (
        {"local_steps": None, "local_epochs": 1},
        {"local_epochs": 2},
        ("local_epochs is 1", "has 2"),
    ),
    "cohort": ({}, {"cohort_size": 2}, ("cohort_size is 3", "has 2")),
    "optimizer states": ({}, {"optimizer_state": "keep"}, ("optimizer_state is 'reset'", "'keep'")),
    "gradients": (
        {"local_steps": 1},
        {"optimizer_state": "reset"},
        ("what comes back is 'gradients'", "'parameters'"),
    ),
    "aggregation": ({}, {"aggregation": Median()}, ("aggregation is None", "Median()")),
    "participation": (
        {},
        {"participation": Stragglers(0.5)},
        ("participation is []", "Stragglers(share=0.5"),
    ),
    "server optimizer": (
        {"server_optimizer": partial(torch.optim.Adam, lr=0.01)},
        {"server_optimizer": partial(torch.optim.SGD, lr=1.0)},
        ("server_optimizer is SGD", "checkpoint's is Adam"),
    ),
}


def saved(folder: Path, strategy: FederatedStrategy, train: Any) -> str:
    saver = ModelCheckpoint(folder, save_last=True)
    fit(strategy, train=train, callbacks=[saver], enable_checkpointing=True, max_epochs=1)
    return saver.last_model_path


@pytest.mark.parametrize("name", OTHER_FEDERATIONS)
def test_a_checkpoint_of_another_federation_is_refused(name: str, tmp_path: Path) -> None:
    common, other, says = OTHER_FEDERATIONS[name]
    path = saved(tmp_path, FederatedStrategy(**(BASE | common)), loader())
    run = trainer(FederatedStrategy(**(BASE | common | other)))
    attempt = partial(run.fit, Untouched(), loader(), ckpt_path=path)
    refused(attempt, (NotFederatable, ValueError), (*says, "to go on, or load the weights alone"))


@pytest.mark.parametrize(
    ("sizes", "says"),
    [((12, 18), ("samples is", "20", "12")), ((20, 5, 5), ("samples is", "'hospital-2'"))],
)
def test_a_checkpoint_of_data_placed_in_another_way_is_refused(
    sizes: tuple[int, ...], says: Says, tmp_path: Path
) -> None:
    path = saved(tmp_path, FederatedStrategy(), at_workers(20, 10))
    attempt = partial(trainer(FederatedStrategy()).fit, Untouched(), at_workers(*sizes), ckpt_path=path)
    refused(attempt, NotFederatable, says)


def test_a_checkpoint_of_data_divided_by_another_seed_is_refused(tmp_path: Path) -> None:
    def divided(seed: int) -> FederatedDataLoader:
        workers = [VirtualWorker(id=name) for name in ("ann", "bob")]
        return FederatedDataLoader(FederatedDataset.from_dataset(samples(), workers, seed=seed), batch_size=4)

    path = saved(tmp_path, FederatedStrategy(), divided(0))
    attempt = partial(trainer(FederatedStrategy()).fit, Untouched(), divided(1), ckpt_path=path)
    refused(attempt, NotFederatable, ("partition is '",))
    trainer(FederatedStrategy(), max_epochs=2).fit(Classifier(), divided(0), ckpt_path=path)
