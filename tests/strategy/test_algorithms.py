"""Algorithms inside a fit: by hand, beside FedAvg where they must agree, at processes, after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from fedlightning.algorithms import (
    APFL,
    IFCA,
    Algorithm,
    Ditto,
    FedAvg,
    FedBN,
    FedDyn,
    FedNova,
    FedPer,
    FedProx,
    FixedAdam,
    FixedMomentum,
    Mime,
    MimeLite,
    Moon,
    PerFedAvg,
    Scaffold,
)
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import VirtualWorker, Worker
from tests.strategy.conftest import MakeWorkers
from tests.strategy.quadratic import Quadratic, assert_at, fit_quadratic
from tests.strategy.remote_toys import Travelling
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer

WORK: list[dict[str, Any]] = [{}, {"local_steps": 3}, {"local_epochs": 2, "cohort_size": 2}]

DEGENERATE: list[tuple[Algorithm, Algorithm]] = [
    (FedProx(mu=0), FedAvg()),
    (FedProx(mu=0, weighting="uniform"), FedAvg(weighting="uniform")),
    (Scaffold(controls="zero"), FedAvg(weighting="uniform")),
    (FedDyn(alpha=0), FedAvg(weighting="uniform")),
    (FedNova(), FedAvg()),  # workers that take as many steps each
    (FedNova(mu=0.1), FedProx(mu=0.1)),
    (Moon("net", mu=0), FedAvg()),
    (MimeLite(FixedMomentum(beta=0)), FedAvg(weighting="uniform")),
]

# What of a module without buffers is plain averaging.
BUFFERS = [FedAvg(buffers="keep"), FedAvg(buffers="reset")]

# As they are meant to be used: every one of them goes through what follows.
USED: list[Algorithm] = [FedProx(mu=0.1), Scaffold(), FedDyn(alpha=0.1), FedNova(), *BUFFERS]
WHOLE_MODELS: list[Algorithm] = [Ditto(), APFL(), PerFedAvg(alpha=0.1), IFCA(clusters=2)]
WITH_PARTS: list[Algorithm] = [
    *WHOLE_MODELS,
    FedPer(personal=["net.4"]),
    FedBN(),
    Scaffold(option="I"),
    Mime(FixedAdam()),
    MimeLite(),
    Moon("net"),
]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(("algorithm", "plain"), DEGENERATE, ids=lambda algorithm: repr(algorithm))
def test_what_must_agree_with_averaging_does(
    algorithm: Algorithm, plain: Algorithm, work: dict[str, Any]
) -> None:
    fits = [
        fit(FederatedStrategy(4, algorithm=each, **work), module=lambda: Classifier(sgd))[0]
        for each in (algorithm, plain)
    ]
    assert_same_module(*fits)


def test_averaging_by_hand() -> None:
    """Two steps leave 9/16 and 1/4 of the way to each target."""
    assert_at(fit_quadratic(rounds=1)[0], [0.875, 0.75])


def test_proximal_training_by_hand() -> None:
    """The leash moves each target to between it and the start: see the numbers of both rounds."""
    assert_at(fit_quadratic(rounds=1, algorithm=FedProx(mu=1))[0], [0.75, 0.625])
    assert_at(fit_quadratic(rounds=2, algorithm=FedProx(mu=1))[0], [1.125, 0.9375])


def test_control_variates_by_hand() -> None:
    """The first round is FedAvg's; in the second, targets move to (2.25, 1.5) and (0.875, 1.25)."""
    first, run = fit_quadratic(rounds=1, algorithm=Scaffold())
    assert_at(first, [0.875, 0.75])
    assert_control(run, [-1.75, -1.5])
    assert_at(fit_quadratic(rounds=2, algorithm=Scaffold())[0], [1.17578125, 1.1015625])


def test_control_variates_by_gradients_by_hand() -> None:
    """Controls become (-4, 0) and (0, -4); targets of the second round move to (2, 2) and (1, 1)."""
    first, run = fit_quadratic(rounds=1, algorithm=Scaffold(option="I"))
    assert_at(first, [0.875, 0.75])
    assert_control(run, [-2.0, -2.0])
    assert_at(fit_quadratic(rounds=2, algorithm=Scaffold(option="I"))[0], [1.16796875, 1.1171875])


def test_control_variates_of_a_part_of_the_workers_count_for_their_share() -> None:
    """With one worker of two, the server's control moves by half of that worker's."""
    _, run = fit_quadratic(rounds=1, algorithm=Scaffold(), cohort_size=1, rounds_per_epoch=1)
    assert run.current_plan is not None
    (worker,) = run.current_plan.workers
    assert_control(run, {"ann": [-1.75, 0.0], "bob": [0.0, -1.5]}[worker])


def assert_control(strategy: FederatedStrategy, expected: list[float]) -> None:
    control = strategy.server_state["control"][0]
    torch.testing.assert_close(control, torch.tensor(expected, dtype=torch.float64))


def test_dynamic_regularisation_by_hand() -> None:
    """Workers go to (1.5, 0) and (0, 1.25), then by their new losses; ``h`` doubles the mean's first way."""
    first, run = fit_quadratic(rounds=1, algorithm=FedDyn(alpha=1))
    assert_at(first, [1.5, 1.25])
    torch.testing.assert_close(run.server_state["h"][0], torch.tensor([-0.75, -0.625], dtype=torch.float64))
    assert_at(fit_quadratic(rounds=2, algorithm=FedDyn(alpha=1))[0], [1.6875, 1.484375])


def test_a_reference_loop_of_dynamic_regularisation_ends_where_ours_does() -> None:
    """The loop is the paper's pseudocode, with its term in the loss and torch's own SGD."""
    curvatures, targets = torch.tensor([1.0, 2.0]), torch.tensor([[4.0, 0.0], [0.0, 2.0]])
    model, h, gradients = torch.zeros(2), torch.zeros(2), [torch.zeros(2), torch.zeros(2)]
    for _ in range(5):
        ends = []
        for worker in range(2):
            theta = model.clone().requires_grad_()
            optimizer = torch.optim.SGD([theta], lr=0.25)
            for _ in range(2):
                optimizer.zero_grad()
                loss = curvatures[worker] / 2 * (theta - targets[worker]).square().sum()
                (loss - gradients[worker] @ theta + 0.1 / 2 * (theta - model).square().sum()).backward()
                optimizer.step()
            gradients[worker] = gradients[worker] - 0.1 * (theta.detach() - model)
            ends.append(theta.detach())
        h = h - 0.1 / 2 * sum(end - model for end in ends)
        model = sum(ends) / 2 - h / 0.1
    ours, _ = fit_quadratic(rounds=5, algorithm=FedDyn(alpha=0.1))
    torch.testing.assert_close(ours.w.detach(), model.double(), rtol=1e-5, atol=1e-6)


def test_normalised_averaging_by_hand() -> None:
    """Bob takes four steps and ann two: 10/3 steps along (1.75 / 2 / 3, 2 * 1.875 / 4 / 3)."""
    module, _ = fit_quadratic(rounds=1, algorithm=FedNova(), samples_of_bob=2)
    assert_at(module, [35 / 36, 25 / 24])


class Pushed(Quadratic):
    """Step by SGD with other settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(0.25)
        self.settings = settings

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.25, **self.settings)


def counts(steps: int, momentum: float, mu: float) -> Tensor:
    """Return the vector ``a`` of Wang et al. 2020 (section 4): how much each gradient counts in the end."""
    left = torch.arange(steps, 0, -1, dtype=torch.float64)
    if momentum:
        return (1 - momentum**left) / (1 - momentum)
    return (1 - 0.25 * mu) ** (left - 1)


@pytest.mark.parametrize(("momentum", "mu"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.5)])
def test_a_reference_loop_of_normalised_averaging_ends_where_ours_does(momentum: float, mu: float) -> None:
    """The loop keeps each gradient and weighs it by ``a``, as the paper writes it."""
    curvatures, targets = (1.0, 2.0), torch.tensor([[4.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    model = torch.zeros(2, dtype=torch.float64)
    for _ in range(3):
        way, effective = torch.zeros(2, dtype=torch.float64), 0.0
        for share, steps, curvature, target in zip((1 / 3, 2 / 3), (2, 4), curvatures, targets, strict=True):
            theta, gradients = model.clone(), []
            for step in range(1, steps + 1):
                gradients.append(curvature * (theta - target))
                a = counts(step, momentum, mu)
                theta = model - 0.25 * (a[:, None] * torch.stack(gradients)).sum(0)
            way += share * (model - theta) / 0.25 / a.sum()
            effective += share * float(a.sum())
        model = model - effective * 0.25 * way
    ours, _ = fit_quadratic(
        rounds=3, algorithm=FedNova(mu=mu), samples_of_bob=2, module=Pushed(momentum=momentum)
    )
    torch.testing.assert_close(ours.w.detach(), model)


@pytest.mark.parametrize(
    ("algorithm", "settings", "state", "why"),
    [
        (FedNova(mu=0.1), {"momentum": 0.9}, "reset", "under momentum or under a proximal term"),
        (FedNova(), {"momentum": 0.9}, "keep", "momentum brings earlier ones along"),
        (FedNova(mu=4.0), {}, "reset", r"lr \* mu must be less than 1"),
    ],
)
def test_gradients_whose_count_is_not_known_are_refused(
    algorithm: Algorithm, settings: dict[str, Any], state: Any, why: str
) -> None:
    with pytest.raises(NotFederatable, match=why):
        fit_quadratic(algorithm=algorithm, module=Pushed(**settings), optimizer_state=state)


class Counting(Quadratic):
    """Count steps in a buffer, and note what every visit begins with."""

    def __init__(self) -> None:
        super().__init__(0.25)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.begun: list[int] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.begun.append(int(self.count))
        self.count += 1
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("buffers", "begun", "end"),
    # ann takes two steps and bob four: 10/3 on average, by samples; 3 as a whole number, then 3 + 10/3.
    [
        ("average", [0, 0, 3, 3], 6),
        ("keep", [0, 0, 2, 4], 7),
        ("reset", [0, 0, 0, 0], 3),
    ],
)
def test_buffers_begin_as_asked(buffers: Any, begun: list[int], end: int) -> None:
    module, _ = fit_quadratic(algorithm=FedAvg(buffers=buffers), samples_of_bob=2, module=Counting())
    assert isinstance(module, Counting)
    first_of_visits = [module.begun[step] for step in (0, 2, 6, 8)]
    assert first_of_visits == begun
    assert module.count == end


@pytest.mark.parametrize("algorithm", BUFFERS, ids=repr)
def test_without_buffers_all_choices_are_one(algorithm: Algorithm) -> None:
    assert torch.equal(fit_quadratic(algorithm=algorithm)[0].w, fit_quadratic()[0].w)


def test_one_step_with_buffers_of_their_own_trains_at_the_workers() -> None:
    module, _ = fit_quadratic(
        algorithm=FedAvg(buffers="reset"), module=Counting(), local_epochs=None, local_steps=1
    )
    assert module.count == 1


class Leashed(Quadratic):
    """The proximal term written into the loss by hand, as the paper has it."""

    def on_train_start(self) -> None:
        self.start = self.w.detach().clone()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + 0.5 * 0.7 * (self.w - self.start).square().sum()


def test_the_proximal_term_is_that_of_the_loss() -> None:
    by_hand, _ = fit_quadratic(rounds=1, module=Leashed(0.25))
    ours, _ = fit_quadratic(rounds=1, algorithm=FedProx(mu=0.7))
    torch.testing.assert_close(ours.w, by_hand.w)


class ByHand(Quadratic):
    """Step the optimizer by hand."""

    def __init__(self) -> None:
        super().__init__(0.25)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


@pytest.mark.parametrize("algorithm", [*USED, Ditto(), APFL()], ids=repr)
def test_manual_optimization_is_corrected_alike(algorithm: Algorithm) -> None:
    automatic, _ = fit_quadratic(algorithm=algorithm)
    manual, _ = fit_quadratic(algorithm=algorithm, module=ByHand())
    assert torch.equal(automatic.w, manual.w)


@pytest.mark.parametrize("algorithm", [*USED, *WHOLE_MODELS], ids=repr)
def test_a_trusted_aggregator_gives_the_same_bits(algorithm: Algorithm) -> None:
    trusted, _ = fit_quadratic(algorithm=algorithm, aggregator=VirtualWorker(id="trusted"))
    assert torch.equal(trusted.w, fit_quadratic(algorithm=algorithm)[0].w)


@pytest.mark.parametrize("algorithm", [*USED, *WITH_PARTS], ids=repr)
def test_a_run_goes_on_in_the_same_bits(algorithm: Algorithm, tmp_path: Path) -> None:
    def run(**settings: Any) -> L.LightningModule:
        strategy = FederatedStrategy(4, algorithm=algorithm, local_steps=2, cohort_size=2)
        return fit(strategy, module=lambda: Classifier(sgd), max_epochs=3, **settings)[0]

    whole = run(
        callbacks=[ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)], enable_checkpointing=True
    )
    paths = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) > 4
    for path in paths[1::3]:
        L.seed_everything(3, verbose=False)
        strategy = FederatedStrategy(4, algorithm=algorithm, local_steps=2, cohort_size=2)
        module, _ = resume(strategy, path)
        assert_same_module(module, whole)


def resume(strategy: FederatedStrategy, path: Path) -> tuple[L.LightningModule, L.Trainer]:
    module = Classifier(sgd)
    run = trainer(strategy, max_epochs=3)
    run.fit(module, loader(), loader(12, shuffle=False), ckpt_path=path)
    return module, run


@pytest.mark.xdist_group("workers elsewhere")
@pytest.mark.parametrize("algorithm", [*USED, *WITH_PARTS], ids=repr)
def test_workers_in_other_processes_end_in_the_same_bits(
    algorithm: Algorithm, workers_elsewhere: MakeWorkers
) -> None:
    def run(workers: list[Worker]) -> L.LightningModule:
        strategy = FederatedStrategy(workers, algorithm=algorithm, local_steps=2)
        return fit(strategy, module=lambda: Travelling(momentum=0.0))[0]

    assert_same_module(run(workers_elsewhere("a", "b")), run([VirtualWorker(id=name) for name in ("a", "b")]))


def test_an_algorithm_that_cannot_train_the_module_says_why() -> None:
    with pytest.raises(NotFederatable, match=r"SGD without momentum .* Adam is not it"):
        fit(FederatedStrategy(4, algorithm=Scaffold()))
    with pytest.raises(NotFederatable, match=r"known of SGD and not of Adam\. Use torch.optim.SGD"):
        fit(FederatedStrategy(4, algorithm=FedNova()))


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    _, run = fit(FederatedStrategy(2, algorithm=FedProx(mu=0.1)))
    run.save_checkpoint(tmp_path / "it.ckpt")
    with pytest.raises(NotFederatable, match=r"its algorithm is .*'mu': 0.1.* and this fit has .*'mu': 0.2"):
        resume(FederatedStrategy(2, algorithm=FedProx(mu=0.2)), tmp_path / "it.ckpt")
