"""Personalised algorithms beside their pseudocode written out in plain numbers, and where their models go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedlightning.algorithms import (
    APFL,
    IFCA,
    Algorithm,
    Ditto,
    FedAvg,
    FedBABU,
    FedBN,
    FedPer,
    FedRep,
    LGFedAvg,
    PerFedAvg,
)
from fedlightning.data import Explicit, FederatedDataLoader, FederatedDataset
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

TARGETS = {"ann": [4.0, 1.0], "bob": [-2.0, 3.0]}
RATE, ROUNDS = 0.25, 3
Numbers = tuple[float, float]


class Body(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(start, dtype=torch.float64))


class TwoNumbers(L.LightningModule):
    """Fit ``body + 2 * head`` to a number: a body and a head of one parameter each."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Body(0.0), Body(1.0)

    def loss(self, batch: list[Tensor]) -> Tensor:
        return (self.body.value + 2 * self.head.value - batch[0]).square().mean() / 2

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", self.loss(batch), batch_size=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=RATE)


def gradient(at: Numbers, target: float) -> Numbers:
    error = at[0] + 2 * at[1] - target
    return error, 2 * error


def moved(at: Numbers, along: Numbers, rate: float = RATE) -> Numbers:
    return at[0] - rate * along[0], at[1] - rate * along[1]


def mean(numbers: list[Numbers]) -> Numbers:
    return sum(n[0] for n in numbers) / len(numbers), sum(n[1] for n in numbers) / len(numbers)


def rounds(visit: Callable[[Numbers, Numbers | None, list[float]], tuple[Numbers, Numbers]]) -> Any:
    """Carry out rounds in which a visit makes (what goes up, what stays) of (global, what stayed)."""
    shared: Numbers = (0.0, 1.0)
    kept: dict[str, Numbers] = {}
    for _ in range(ROUNDS):
        up = []
        for worker, targets in TARGETS.items():
            sent, kept[worker] = visit(shared, kept.get(worker), targets)
            up.append(sent)
        shared = mean(up)
    return shared, kept


def fedper(shared: Numbers, own: Numbers | None, targets: list[float]) -> tuple[Numbers, Numbers]:
    at = (shared[0], own[1] if own else shared[1])
    for target in targets:
        at = moved(at, gradient(at, target))
    return (at[0], shared[1]), at


def fedrep(shared: Numbers, own: Numbers | None, targets: list[float]) -> tuple[Numbers, Numbers]:
    at = (shared[0], own[1] if own else shared[1])
    at = moved(at, (0.0, gradient(at, targets[0])[1]))
    at = moved(at, (gradient(at, targets[1])[0], 0.0))
    return (at[0], shared[1]), at


def fedbabu(shared: Numbers, own: Numbers | None, targets: list[float]) -> tuple[Numbers, Numbers]:
    at = shared
    for target in targets:
        at = moved(at, (gradient(at, target)[0], 0.0))
    return at, at


def ditto(shared: Numbers, own: Numbers | None, targets: list[float]) -> tuple[Numbers, Numbers]:
    at, mine = shared, own or shared
    for target in targets:
        at = moved(at, gradient(at, target))
        g = gradient(mine, target)
        mine = moved(mine, (g[0] + 0.5 * (mine[0] - shared[0]), g[1] + 0.5 * (mine[1] - shared[1])))
    return at, mine


def apfl(shared: Numbers, own: Numbers | None, targets: list[float]) -> tuple[Numbers, Numbers]:
    at, mine = shared, own or shared
    for target in targets:
        mixed = (0.3 * mine[0] + 0.7 * at[0], 0.3 * mine[1] + 0.7 * at[1])
        mine = moved(mine, gradient(mixed, target), 0.3 * RATE)
        at = moved(at, gradient(at, target))
    return at, mine


def test_apfl_learns_each_worker_s_share() -> None:
    """By the gradient of the mixture's loss along the way from the global model to the worker's own."""
    shares = dict.fromkeys(TARGETS, 0.05)

    def adaptive(name: str, at: Numbers, mine: Numbers) -> tuple[Numbers, Numbers]:
        for target in TARGETS[name]:
            share = shares[name]
            mixed = (share * mine[0] + (1 - share) * at[0], share * mine[1] + (1 - share) * at[1])
            g = gradient(mixed, target)
            slope = (mine[0] - at[0]) * g[0] + (mine[1] - at[1]) * g[1]
            mine, at = moved(mine, g, share * RATE), moved(at, gradient(at, target))
            shares[name] = min(max(share - RATE * slope, 0.0), 1.0)
        return at, mine

    shared: Numbers = (0.0, 1.0)
    own = dict.fromkeys(TARGETS, shared)
    for number in range(ROUNDS):
        visits = {name: adaptive(name, shared, own[name] if number else shared) for name in TARGETS}
        shared, own = mean([at for at, _ in visits.values()]), {name: v for name, (_, v) in visits.items()}
    module, strategy, _ = fit_two_numbers(APFL(alpha=0.05, adaptive=True))
    assert (module.body.value.item(), module.head.value.item()) == pytest.approx(shared, abs=1e-12)
    for name, member in strategy.federation.members.items():
        kept = member.memory.get().own_before(ROUNDS)
        assert [tensor.item() for tensor in kept["personal"]] == pytest.approx(own[name], abs=1e-12)
        assert kept["alpha"][0].item() == pytest.approx(shares[name], abs=1e-12)
    assert shares == {"ann": pytest.approx(0.9393, abs=1e-4), "bob": 0.0}


def perfedavg(shared: Numbers, own: Numbers | None, targets: list[float]) -> tuple[Numbers, Numbers]:
    first, second = targets
    ahead = moved(shared, gradient(shared, first), 0.1)
    return moved(shared, gradient(ahead, second)), shared


BY_HAND: list[tuple[Algorithm, Any]] = [
    (FedPer(personal=["head"]), fedper),
    (FedRep(personal=["head"], head_share=0.5), fedrep),
    (FedBABU(head=["head"]), fedbabu),
    (Ditto(lam=0.5), ditto),
    (APFL(alpha=0.3), apfl),
    (PerFedAvg(alpha=0.1), perfedavg),
]


def fit_two_numbers(algorithm: Algorithm) -> tuple[TwoNumbers, FederatedStrategy, L.Trainer]:
    module = TwoNumbers()
    data = TensorDataset(torch.tensor([*TARGETS["ann"], *TARGETS["bob"]], dtype=torch.float64))
    workers = [VirtualWorker(id=name) for name in TARGETS]
    strategy = FederatedStrategy(workers, Explicit([[0, 1], [2, 3]]), algorithm=algorithm, seed=0)
    run = trainer(strategy, max_epochs=ROUNDS)
    run.fit(module, DataLoader(data, batch_size=1))
    return module, strategy, run


@pytest.mark.parametrize(("algorithm", "visit"), BY_HAND, ids=lambda value: type(value).__name__)
def test_three_rounds_are_those_of_the_pseudocode(algorithm: Algorithm, visit: Any) -> None:
    module, strategy, _ = fit_two_numbers(algorithm)
    shared, kept = rounds(visit)
    assert (module.body.value.item(), module.head.value.item()) == pytest.approx(shared, abs=1e-12)
    for name, (body, head) in kept.items():
        member = strategy.federation.members[name]
        own = member.memory.get().own_before(ROUNDS).get("personal", [])
        stayed = {0: [], 1: [head], 2: [body, head]}[len(own)]
        assert [tensor.item() for tensor in own] == pytest.approx(stayed, abs=1e-12)


@pytest.mark.parametrize("local", [{}, {"local_steps": 3}, {"cohort_size": 2}], ids=str)
@pytest.mark.parametrize(
    "algorithm",
    [FedPer(), LGFedAvg(), FedRep(), FedBABU(), APFL(alpha=0), IFCA(clusters=1)],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_with_nothing_personal_it_is_averaging(algorithm: Algorithm, local: Any) -> None:
    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05)

    fits = [
        fit(FederatedStrategy(4, algorithm=each, **local), module=lambda: Classifier(sgd))[0]
        for each in (algorithm, FedAvg())
    ]
    assert_same_module(*fits)


def test_the_global_model_of_ditto_is_that_of_averaging() -> None:
    fits = [
        fit(FederatedStrategy(4, algorithm=each), module=lambda: Classifier(dropout=0.0))[0]
        for each in (Ditto(lam=0.1), FedAvg())
    ]
    assert_same_module(*fits)


def test_what_is_personal_neither_leaves_nor_changes_the_global_module() -> None:
    L.seed_everything(3)
    before = Classifier().net[4].weight.detach().clone()
    module, _ = fit(FederatedStrategy(4, algorithm=FedPer(personal=["net.4"])))
    assert torch.equal(module.net[4].weight, before)
    assert not torch.equal(module.net[0].weight, Classifier().net[0].weight)


def test_each_worker_has_norm_layers_of_its_own() -> None:
    module, run = fit(FederatedStrategy(4, algorithm=FedBN()))
    strategy = run.strategy
    own = [m.memory.get().own_before(99)["personal"] for m in strategy.federation.members.values()]
    means = [tensors[2] for tensors in own]
    assert len(own[0]) == 5  # weight, bias, running mean and variance, batches seen
    assert not any(torch.equal(means[0], other) for other in means[1:])
    assert module.net[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    "algorithm",
    [FedPer(personal=["net.4"]), FedBN(), Ditto(), APFL(), APFL(adaptive=True), PerFedAvg(alpha=0.1)],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_data_at_workers_is_evaluated_by_their_own_models(algorithm: Algorithm) -> None:
    """Each row is what the worker's own model gives on its own samples; the global module is as before."""
    workers = [VirtualWorker(id=name) for name in ("ann", "bob", "carl")]
    dataset = FederatedDataset.from_dataset(samples(), workers)
    strategy = FederatedStrategy(workers, algorithm=algorithm)
    run = trainer(strategy, max_epochs=2)
    L.seed_everything(3)
    module = Classifier()
    run.fit(module, FederatedDataLoader(dataset, batch_size=4, shuffle=True))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    run.validate(module, FederatedDataLoader(dataset, batch_size=4), verbose=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    rows = {row.worker: row.metrics["val/loss"] for row in strategy.evaluation_by_worker()}
    summary = {row.worker: row.metrics["val/loss"] for row in strategy.federation_summary()}
    assert rows == pytest.approx(summary, rel=1e-6)
    plain = FederatedStrategy(workers)
    trainer(plain).validate(module, FederatedDataLoader(dataset, batch_size=4), verbose=False)
    assert all(
        rows[row.worker] != pytest.approx(row.metrics["val/loss"]) for row in plain.evaluation_by_worker()
    )


class Line(L.LightningModule):
    """Tell two classes apart by a line through the origin."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1, bias=False)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(self.line(x)[:, 0], y)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("right", ((self.line(x)[:, 0] > 0) == y).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def test_clusters_find_the_workers_that_belong_together() -> None:
    """The labels of two kinds of workers contradict each other: one model cannot serve both, two can."""
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).float()
    contrary = torch.tensor([0, 1, 0, 1]).repeat_interleave(30).bool()
    data = TensorDataset(x, torch.where(contrary, 1 - y, y))
    parts = Explicit({name: range(30 * i, 30 * i + 30) for i, name in enumerate(["a", "b", "c", "d"])})
    right = {}
    for clusters in (1, 2):
        strategy = FederatedStrategy(partition=parts, algorithm=IFCA(clusters=clusters), seed=1)
        fit(strategy, module=Line, train=DataLoader(data, batch_size=10), max_epochs=10)
        right[clusters] = min(row.metrics["right"] for row in strategy.federation_summary())
    assert right[2] > 0.8 > right[1]


def test_a_loader_that_is_here_evaluates_the_global_module_and_says_so() -> None:
    with pytest.warns(UserWarning, match="FedPer makes a model of each worker's own"):
        fit(FederatedStrategy(4, algorithm=FedPer(personal=["net.4"])))


def test_a_pattern_without_meaning_is_refused() -> None:
    with pytest.raises(NotFederatable, match="personal names 'head', and the module has no such part"):
        fit(FederatedStrategy(4, algorithm=FedPer(personal=["head"])))


@pytest.mark.parametrize(
    "algorithm",
    [IFCA(), PerFedAvg(), FedBABU(head=["net.4"])],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_what_needs_the_loss_refuses_manual_optimization(algorithm: Algorithm) -> None:
    module = Classifier()
    module.automatic_optimization = False
    with pytest.raises(NotFederatable, match="under manual optimization training_step steps at once"):
        fit(FederatedStrategy(4, algorithm=algorithm), module=module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FedPer(personal="head"), "personal must be a list"),
        (lambda: FedRep(personal=["head"], head_share=1.5), "head_share must be between 0 and 1"),
        (lambda: Ditto(lam=-1), "lam must be at least 0"),
        (lambda: APFL(alpha=2), "alpha must be between 0 and 1"),
        (lambda: IFCA(clusters=0), "clusters must be a whole number of at least 1"),
        (lambda: FedBABU(head=["head"], fine_tune_steps=-1), "fine_tune_steps must be at least 0"),
    ],
)
def test_nonsense_is_refused_at_once(make: Callable[[], Algorithm], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_a_lone_worker_cannot_fine_tune_ahead() -> None:
    module, strategy, run = fit_two_numbers(PerFedAvg())
    alone = FederatedStrategy(1, algorithm=PerFedAvg())
    fit(alone, module=Classifier, train=loader())
    with pytest.raises(Exception, match="cannot read ahead"):
        alone.federation_summary()
    assert run.strategy is strategy
    assert module.body.value.isfinite()
