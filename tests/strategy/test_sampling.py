"""Cohorts in a fit: who is drawn trains, choosing leaves no trace, and a run that was cut goes on alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from fedlightning import Tolerance
from fedlightning.algorithms import (
    APFL,
    IFCA,
    Algorithm,
    ChosenBy,
    Ditto,
    Draw,
    FedBABU,
    FedDyn,
    FedNova,
    FedPer,
    FedProx,
    FixedOrder,
    MimeLite,
    Moon,
    OnlineWorkers,
    PerFedAvg,
    Plan,
    PoissonSampling,
    PowerOfChoice,
    RoundRobin,
    Sampling,
    Scaffold,
    TaggedWorkers,
    UniformSampling,
    WeightedSampling,
    uniform_cohort,
)
from fedlightning.callbacks import FederatedCallback
from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset
from fedlightning.pointers.messages import Message, Run
from fedlightning.strategy import CohortTooSmall, FederatedStrategy, NotFederatable, RoundFailed
from fedlightning.strategy.history import History
from fedlightning.workers import VirtualWorker, WorkerLost
from fedlightning.workers.reply import Failed, Reply
from tests.strategy import toys
from tests.strategy.toys import Classifier, Memo, assert_same_module, loader, samples, trainer

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1)
NAMES = [f"worker-{number}" for number in range(6)]
PARTS = Explicit({name: list(range(5 * number, 5 * number + 5)) for number, name in enumerate(NAMES)})


class Teacher(Classifier):
    """Writes to itself in every step, whatever its mode: a count, and a frozen copy."""

    def __init__(self) -> None:
        super().__init__(SGD)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.teacher = nn.Linear(4, 3).requires_grad_(False)

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.steps += 1
        self.teacher.weight.mul_(0.9)
        return super().training_step(batch, batch_idx) + torch.rand(()) * self.net[0].weight.sum()


class Plain(Classifier):
    """The same loss in training and evaluation."""

    def __init__(self) -> None:
        super().__init__(SGD)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class PlainSGD(Plain):
    """Without momentum, which not every algorithm allows."""

    def __init__(self) -> None:
        super().__init__()
        self.make_optimizer = partial(torch.optim.SGD, lr=0.1)


def fit(strategy: FederatedStrategy, **settings: Any) -> tuple[Any, Any]:
    """Fit in batches of three of a worker's five samples: batch norm cannot train on one."""
    return toys.fit(strategy, **{"train": loader(batch_size=3), **settings})


def strategy(sampling: Sampling | None, cohort_size: int | None = 2, **settings: Any) -> FederatedStrategy:
    return FederatedStrategy(
        **{"partition": PARTS, "seed": 5, "cohort_size": cohort_size, "sampling": sampling, **settings}
    )


def cohorts_of(history: History) -> list[tuple[str, ...]]:
    return [record.workers for record in history]


# Choosing leaves no trace.


@pytest.mark.parametrize("work", [{"local_steps": 2}, {"local_steps": 1}], ids=["local", "gradients"])
@pytest.mark.parametrize(
    ("sampling", "cohort_size"),
    [
        (UniformSampling(), 2),
        (ChosenBy(lambda draw: uniform_cohort(draw.workers, 2, seed=draw.seed, round=draw.round)), 2),
        (FixedOrder(NAMES[::-1]), None),
        (PowerOfChoice(6), 6),
        (PowerOfChoice(6, batches=1), 6),
        (PowerOfChoice(6, "reported"), 6),
        (TaggedWorkers("a", dict.fromkeys(NAMES, "a"), then=OnlineWorkers([NAMES])), 2),
    ],
    ids=["uniform", "function", "all in order", "pow-d", "cpow-d", "rpow-d", "nested"],
)
def test_ways_that_come_to_the_same_end_in_the_same_bits(
    sampling: Sampling, cohort_size: int | None, work: dict[str, int]
) -> None:
    """All have equal samples, so weights of one are those of samples; and evaluation must not be noticed."""
    usual, chosen = Memo(), Memo()
    expected, run = fit(strategy(None, cohort_size, **work), module=Teacher, logger=usual)
    module, other = fit(strategy(sampling, cohort_size, **work), module=Teacher, logger=chosen)
    assert_same_module(expected, module)
    assert usual.entries == chosen.entries
    assert cohorts_of(run.strategy.history) == cohorts_of(other.strategy.history)


# Power of choice.


class Judge(FederatedCallback):
    """Work out by hand, before each round, who should have been chosen."""

    def __init__(self) -> None:
        self.expected: list[tuple[str, ...]] = []

    @override
    def on_round_start(self, trainer: L.Trainer, pl_module: L.LightningModule, plan: Plan) -> None:
        losses = {}
        for name, part in PARTS.indices.items():
            x, y = samples()[list(part)]
            with torch.no_grad():
                losses[name] = float(nn.functional.cross_entropy(pl_module.net(x), y))
        worst = sorted(losses, key=losses.__getitem__)[-2:]
        self.expected.append(tuple(sorted(worst)))


@pytest.mark.parametrize("batches", [None, 9])
def test_those_with_the_highest_loss_of_the_global_model_take_part(batches: int | None) -> None:
    judge = Judge()
    _, run = fit(strategy(PowerOfChoice(6, batches=batches)), module=Plain, callbacks=[judge], max_epochs=3)
    assert cohorts_of(run.strategy.history) == judge.expected
    assert len(set(judge.expected)) > 1, "a test in which all rounds are alike shows little"


@pytest.mark.parametrize("batches", [None, 1])
def test_candidates_measure_on_several_loaders_as_they_train(batches: int | None) -> None:
    seen: list[tuple[int, ...]] = []

    class Both(Plain):
        @override
        def training_step(self, batch: dict[str, list[Tensor]], batch_idx: int) -> Tensor:
            if not self.training:
                seen.append(tuple(map(len, (batch["a"][1], batch["b"][1]))))
            first, second = (nn.functional.cross_entropy(self.net(x), y) for x, y in batch.values())
            return first + second

    _, run = fit(
        strategy(PowerOfChoice(6, batches=batches), partition=None, workers=6, rounds_per_epoch=3),
        module=Both,
        train={"a": loader(batch_size=3), "b": loader(18, batch_size=3)},
        max_epochs=1,
    )
    assert all(len(cohort) == 2 for cohort in cohorts_of(run.strategy.history))
    assert len(seen) == 3 * 6 * (batches or 2)


def test_a_few_batches_are_a_random_part_of_the_data() -> None:
    seen: list[tuple[int, ...]] = []

    class Watched(Plain):
        @override
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            if not self.training:
                seen.append(tuple(sorted(batch[1].tolist())))
            return super().training_step(batch, batch_idx)

    data = TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    fit(
        strategy(PowerOfChoice(6, batches=1), rounds_per_epoch=8),
        module=Watched,
        train=DataLoader(data, batch_size=2),
    )
    assert len(seen) == 6 * 16, "one batch of each candidate in each round"
    assert len(set(seen)) > 3, "not always the first"


def test_whoever_was_never_visited_goes_first_then_the_last_loss_decides() -> None:
    _, run = fit(
        strategy(PowerOfChoice(6, "reported"), local_steps=2, rounds_per_epoch=9),
        module=Plain,
        max_epochs=1,
    )
    history = run.strategy.history
    first = [name for cohort in cohorts_of(history)[:3] for name in cohort]
    assert sorted(first) == NAMES
    losses: dict[str, float] = {}
    for number, cohort in enumerate(cohorts_of(history)):
        if number >= 3:
            assert cohort == tuple(sorted(sorted(losses, key=losses.__getitem__)[-2:]))
        losses |= {v.worker: v.loss for v in history.visits if v.round == number and v.loss is not None}
    assert all(down == up for up, down in _module_sizes(history)), "nothing but the visits is sent"


def test_the_journey_to_candidates_is_counted() -> None:
    def moved(sampling: Sampling) -> tuple[int, int]:
        _, run = fit(strategy(sampling, local_steps=2, rounds_per_epoch=1), module=Plain, max_epochs=1)
        (record,) = run.strategy.history
        return record.bytes_up, record.bytes_down

    module_bytes = sum(p.numel() * p.element_size() for p in Plain().parameters())
    up, down = moved(PowerOfChoice(4, "reported"))
    evaluated_up, evaluated_down = moved(PowerOfChoice(4))
    assert evaluated_down - down == pytest.approx(4 * module_bytes, rel=0.05)
    assert 0 < evaluated_up - up < 4 * 100, "a number comes back from each"


def _module_sizes(history: History) -> list[tuple[int, int]]:
    visited = [sum(v.bytes_down for v in history.visits if v.round == r.round) for r in history]
    return [(record.bytes_down, total) for record, total in zip(history, visited, strict=True)]


class Deaf(VirtualWorker):
    """A worker that is lost when its loss is to be measured."""

    @override
    def submit(self, message: Message) -> Reply:
        if isinstance(message, Run) and message.program.endswith("measure_loss") and self.id == "worker-4":
            return Failed(WorkerLost(self.id, f"worker {self.id!r} is gone"))
        return super().submit(message)


def test_a_candidate_that_is_lost_is_none_where_that_is_tolerated() -> None:
    workers = [Deaf(id=name) for name in NAMES]
    with pytest.raises(RoundFailed, match="worker 'worker-4', round 0: worker 'worker-4' is gone"):
        fit(strategy(PowerOfChoice(6), workers=workers), module=Plain)
    with pytest.warns(UserWarning, match="round 0: worker 'worker-4' is no candidate"):
        _, run = fit(
            strategy(PowerOfChoice(6), 5, workers=workers, tolerance=Tolerance(on_lost="skip")),
            module=Plain,
            max_epochs=1,
        )
    assert {name for cohort in cohorts_of(run.strategy.history) for name in cohort} == set(NAMES) - {
        "worker-4"
    }


def test_a_step_that_raises_at_a_candidate_is_located_and_leaves_the_module_alone() -> None:
    class Fragile(Teacher):
        @override
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            if not self.training and batch_idx == 1:
                raise KeyError("field")
            return loss

    L.seed_everything(3, verbose=False)
    module = Fragile()
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(RoundFailed, match=r"worker 'worker-\d', round 0, local step 1: KeyError") as caught:
        fit(strategy(PowerOfChoice(6)), module=lambda: module)
    assert isinstance(caught.value, KeyError)
    assert module.training
    assert all(torch.equal(tensor, start[name]) for name, tensor in module.state_dict().items())


# Weights.


def test_weights_given_with_a_cohort_are_those_of_the_average() -> None:
    def trained(chosen: dict[str, float]) -> dict[str, Tensor]:
        module, _ = fit(
            strategy(ChosenBy(lambda draw: chosen), None, rounds_per_epoch=1, local_steps=2),
            module=Plain,
            max_epochs=1,
        )
        return module.state_dict()

    one, other = trained({"worker-1": 1.0}), trained({"worker-4": 1.0})
    both = trained({"worker-4": 0.5, "worker-1": 1.5})
    for name, tensor in both.items():
        torch.testing.assert_close(tensor, 0.75 * one[name] + 0.25 * other[name])


# Empty rounds.

EVERY_OTHER = OnlineWorkers([NAMES[:3], []])
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


# Sequential runs.


def test_a_sequential_run_visits_in_the_order_that_is_meant() -> None:
    _, run = fit(
        strategy(FixedOrder(["worker-4", "worker-0", "worker-2"]), None, update="sequential"), max_epochs=2
    )
    assert cohorts_of(run.strategy.history) == [("worker-4",), ("worker-0",), ("worker-2",)] * 2


# Tags.


def test_owners_tags_say_who_takes_part() -> None:
    workers = [VirtualWorker(id=name) for name in ("ann", "bob", "carl")]
    x, y = samples(12).tensors
    placed = {
        worker: (worker.register(x[part], tags=tags), worker.register(y[part], tags=tags))
        for worker, part, tags in zip(
            workers, torch.arange(12).chunk(3), [("#heart",), ("#lung",), ("#heart", "#lung")], strict=True
        )
    }
    _, run = fit(
        FederatedStrategy(sampling=TaggedWorkers("#heart"), seed=0),
        train=FederatedDataLoader(FederatedDataset(placed), batch_size=2),
    )
    assert set(cohorts_of(run.strategy.history)) == {("ann", "carl")}


# Going on from a checkpoint.


def fifth(draw: Draw) -> list[str]:
    return sorted(draw.workers, key=lambda name: draw.losses.reported.get(name, 9.0))[-2:]


RESUMED: dict[str, dict[str, Any]] = {
    "weighted": {"sampling": WeightedSampling()},
    "Poisson": {"sampling": PoissonSampling()},
    "round robin": {"sampling": RoundRobin()},
    "pow-d": {"sampling": PowerOfChoice(4)},
    "cpow-d": {"sampling": PowerOfChoice(4, batches=1), "local_steps": 1},
    "rpow-d": {"sampling": PowerOfChoice(4, "reported")},
    "function of losses": {"sampling": ChosenBy(fifth)},
    "online, sequential": {"sampling": EVERY_OTHER, "update": "sequential"},
}


@pytest.mark.parametrize("settings", RESUMED.values(), ids=RESUMED)
def test_a_run_goes_on_with_the_same_cohorts_and_bits(settings: dict[str, Any], tmp_path: Path) -> None:
    each = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    settings = {"rounds_per_epoch": 4, **settings}
    whole, run = fit(strategy(**settings), enable_checkpointing=True, callbacks=[each])
    assert len(list(tmp_path.glob("*.ckpt"))) == 8
    for step in (1, 3, 5):
        torch.manual_seed(99)
        module = Classifier()
        other = trainer(strategy(**settings))
        other.fit(
            module,
            loader(batch_size=3),
            loader(12, shuffle=False),
            ckpt_path=str(tmp_path / f"step={step}.ckpt"),
        )
        assert_same_module(whole, module)
        assert cohorts_of(other.strategy.history) == cohorts_of(run.strategy.history)


def test_another_way_of_sampling_is_another_run(tmp_path: Path) -> None:
    each = ModelCheckpoint(tmp_path, save_last=True)
    fit(strategy(RoundRobin()), enable_checkpointing=True, callbacks=[each], max_epochs=1)
    with pytest.raises(
        NotFederatable, match=r"its sampling is 'RoundRobin\(\)', and this fit has 'UniformSampling\(\)'"
    ):
        trainer(strategy(None)).fit(Classifier(), loader(batch_size=3), ckpt_path=str(tmp_path / "last.ckpt"))


# What is refused.


class ByHand(Classifier):
    def __init__(self) -> None:
        super().__init__(schedule=False)
        self.automatic_optimization = False

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        pytest.fail("a training step was taken")


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sampling": "uniform"}, TypeError, "sampling must be a way of sampling .* got 'uniform'"),
    ({"sampling": PoissonSampling(0.5), "cohort_size": 2}, ValueError, "the mean size .* given once"),
    ({"sampling": PoissonSampling()}, ValueError, "the mean size .* given once"),
    ({"sampling": PowerOfChoice(2), "cohort_size": 3}, ValueError, "Give a cohort_size between 1 and 2"),
    (
        {"sampling": WeightedSampling(), "update": "sequential"},
        ValueError,
        r"WeightedSampling\(.*\) draws for rounds that are averaged",
    ),
    (
        {"sampling": FixedOrder(["eve"]), "workers": [VirtualWorker(id="bob"), VirtualWorker(id="ann")]},
        ValueError,
        r"order names \['eve'\].*Name some of the 2 workers: 'ann', 'bob'",
    ),
]
BAD_AT_FIT: list[tuple[dict[str, Any], Callable[[], L.LightningModule], str]] = [
    ({"sampling": RoundRobin(), "workers": 1}, Classifier, "there is only one worker to draw"),
    ({"sampling": FixedOrder(["eve"]), "workers": 3}, Classifier, r"order names \['eve'\]"),
    ({"sampling": TaggedWorkers("gpu"), "workers": 3}, Classifier, "virtual ones that hold nothing yet"),
    ({"sampling": PowerOfChoice(4), "workers": 3, "cohort_size": 2}, Classifier, "candidates=4 is more than"),
    (
        {"sampling": PowerOfChoice(3), "workers": 3, "cohort_size": 2},
        ByHand,
        r"ByHand steps by hand in there. Use PowerOfChoice\(..., losses='reported'\)",
    ),
]


@pytest.mark.parametrize(("settings", "kind", "match"), BAD)
def test_what_cannot_be_is_refused_at_once(
    settings: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        FederatedStrategy(**settings)


@pytest.mark.parametrize(("settings", "module", "match"), BAD_AT_FIT)
def test_what_the_data_or_the_module_rule_out_is_refused_before_any_work(
    settings: dict[str, Any], module: Callable[[], L.LightningModule], match: str
) -> None:
    with pytest.raises((ValueError, NotFederatable), match=match):
        fit(FederatedStrategy(**settings), module=module)
