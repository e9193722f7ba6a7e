"""FLTrust inside a fit: by hand, with attacks and everything else, and what it refuses."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fedlightning.algorithms import FedProx, FLTrust, Median, Scaffold, TrimmedMean
from fedlightning.algorithms.attacks import BadWorkers, Gaussian, InnerProduct, SignFlip
from fedlightning.algorithms.postprocessing import Clip
from fedlightning.data import FederatedDataLoader, FederatedDataset
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import VirtualWorker
from tests.strategy.quadratic import assert_at, fit_quadratic
from tests.strategy.test_attacks import Softmax, sgd
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer


def quadratic_root(target: tuple[float, float]) -> Dataset[Any]:
    return TensorDataset(torch.ones(1, dtype=torch.float64), torch.tensor([target], dtype=torch.float64))


def trusting(**settings: Any) -> FederatedStrategy:
    return FederatedStrategy(4, aggregation=FLTrust(), root_data=samples(6, seed=1), **settings)


@pytest.mark.parametrize(("rounds", "expected"), [(1, [1.23744, 1.23744]), (2, [2.79735, 0.53871])])
def test_two_rounds_by_hand(rounds: int, expected: list[float]) -> None:
    """Ann goes (1.75, 0), bob (0, 1.5) and the server (1.75, 1.75): both are trusted, by cos 45°, and scaled
    to 1.75 * sqrt(2). From there ann goes (1.2086, -0.5414), with a cosine of 0.3563, and bob
    (-0.9281, 0.5719), against the server's (1.2086, 1.2086): only ann counts, scaled by 1.7093 / 1.3243.
    """
    module, _ = fit_quadratic(rounds=rounds, aggregation=FLTrust(), root_data=quadratic_root((4.0, 4.0)))
    torch.testing.assert_close(
        module.w.detach(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5
    )


def test_by_hand_from_gradients() -> None:
    """One step of rate 1/4: ann's gradient is (-4, 0), the server's, too; bob's is at 90° to it."""
    module, _ = fit_quadratic(
        rounds=1,
        aggregation=FLTrust(),
        root_data=quadratic_root((4.0, 0.0)),
        local_epochs=None,
        local_steps=1,
    )
    assert_at(module, [1.0, 0.0])


def test_the_server_does_the_same_local_work() -> None:
    """With a proximal term of 2, a second step from (1, 1) of the first towards (4, 4) is one by 1/4 only."""
    module, _ = fit_quadratic(
        rounds=1, aggregation=FLTrust(), root_data=quadratic_root((4.0, 4.0)), algorithm=FedProx(mu=2.0)
    )
    # The server goes (1.25, 1.25); ann and bob are at 45° to it, whatever their lengths.
    assert_at(module, [1.25 / 2**0.5, 1.25 / 2**0.5])


@pytest.mark.parametrize("attack", [SignFlip(scale=10.0), Gaussian(std=20.0), InnerProduct(5.0)], ids=repr)
def test_a_majority_of_bad_workers_is_withstood(attack: Any) -> None:
    """The root data tells what no vote can: seven of ten are bad, and the median falls."""
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    data, root = TensorDataset(x, (x[:, 0] > 0).long()), TensorDataset(x[:50], (x[:50, 0] > 0).long())

    def accuracy(**settings: Any) -> float:
        strategy = FederatedStrategy(10, bad_workers=BadWorkers(attack, share=0.7), seed=0, **settings)
        module, _ = fit(strategy, module=Softmax, train=DataLoader(data, batch_size=10), max_epochs=4)
        assert isinstance(module, Softmax)
        return float((module.map(x).argmax(1) == data.tensors[1]).float().mean())

    assert accuracy(aggregation=FLTrust(), root_data=root) > 0.9 > accuracy(aggregation=Median())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"local_steps": 1},
        {"algorithm": Scaffold()},
        {"postprocess": [Clip(norm=1.0)]},
        {"bad_workers": BadWorkers(InnerProduct(), share=0.5)},
        {"server_optimizer": partial(torch.optim.SGD, lr=0.5)},
    ],
    ids=lambda settings: str(list(settings)),
)
def test_a_trusted_aggregator_gives_the_same_bits(settings: dict[str, Any]) -> None:
    def run(**more: Any) -> L.LightningModule:
        return fit(trusting(**settings, **more), module=lambda: Classifier(sgd))[0]

    assert_same_module(run(), run(aggregator=VirtualWorker(id="trusted")))


def test_root_data_is_nobody_s_and_is_never_sent() -> None:
    strategy = trusting()
    fit(strategy)
    assert list(strategy.federation.samples) == [f"worker-{number}" for number in range(4)]
    assert {name for record in strategy.history for name in record.workers} == set(
        strategy.federation.samples
    )
    plain = FederatedStrategy(4, aggregation=TrimmedMean(0.0))
    fit(plain)
    assert [r.bytes_up for r in strategy.history] == [r.bytes_up for r in plain.history]


@pytest.mark.parametrize("settings", [{}, {"algorithm": Scaffold()}, {"optimizer_state": "keep"}])
def test_a_run_goes_on_in_the_same_bits(settings: dict[str, Any], tmp_path: Path) -> None:
    make = partial(Classifier, None if "optimizer_state" in settings else sgd)
    whole, _ = fit(trusting(**settings), module=make)
    first = trainer(trusting(**settings), max_epochs=1)
    L.seed_everything(3, verbose=False)
    first.fit(make(), loader())
    first.save_checkpoint(tmp_path / "half.ckpt")
    L.seed_everything(3, verbose=False)
    module = make()
    trainer(trusting(**settings)).fit(module, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert_same_module(module, whole)


def test_what_listens_hears_nothing_of_the_root_data() -> None:
    """In the first round, everything that is logged is what it is without."""
    _, plain = fit(FederatedStrategy(4, aggregation=TrimmedMean(0.0), rounds_per_epoch=1), max_epochs=1)
    _, ours = fit(trusting(rounds_per_epoch=1), max_epochs=1)
    logged = [name for name in plain.callback_metrics if name.startswith("train/")]
    assert len(logged) >= 3
    assert all(plain.callback_metrics[name] == ours.callback_metrics[name] for name in logged)


def test_a_number_draws_from_the_training_data() -> None:
    def run(root_data: int) -> L.LightningModule:
        return fit(FederatedStrategy(4, aggregation=FLTrust(), root_data=root_data, seed=5), max_epochs=1)[0]

    assert_same_module(run(10), run(10))
    assert not torch.equal(run(10).net[0].weight, run(11).net[0].weight)


def test_data_at_workers_is_combined_by_the_server_s() -> None:
    at_workers = FederatedDataset.from_dataset(samples(30), [VirtualWorker(id="a"), VirtualWorker(id="b")])
    module, _ = fit(
        FederatedStrategy(aggregation=FLTrust(), root_data=samples(6)),
        train=FederatedDataLoader(at_workers, batch_size=4),
    )
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_bad_settings() -> None:
    with pytest.raises(
        ValueError, match=r"aggregation=FLTrust\(\) compares .* there is none. Give root_data: "
    ):
        FederatedStrategy(4, aggregation=FLTrust())
    with pytest.raises(
        ValueError, match=r"aggregation=Median\(\) has no use for it. Use aggregation=FLTrust"
    ):
        FederatedStrategy(4, aggregation=Median(), root_data=samples(6))
    with pytest.raises(ValueError, match="no samples"):
        FederatedStrategy(4, aggregation=FLTrust(), root_data=samples(0))
    with pytest.raises(TypeError, match="map-style"):
        FederatedStrategy(4, aggregation=FLTrust(), root_data=3.5)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="root_data must be at least 1, got 0"):
        FederatedStrategy(4, aggregation=FLTrust(), root_data=0)
    with pytest.raises(NotFederatable, match="root_data=31 is more than the 30 samples"):
        fit(FederatedStrategy(4, aggregation=FLTrust(), root_data=31))
    at_workers = FederatedDataset.from_dataset(samples(30), [VirtualWorker(id="a"), VirtualWorker(id="b")])
    with pytest.raises(NotFederatable, match="root_data=3 is to be drawn from data that lies at workers"):
        fit(
            FederatedStrategy(aggregation=FLTrust(), root_data=3),
            train=FederatedDataLoader(at_workers, batch_size=4),
        )
    with pytest.raises(ValueError, match="no full batch"):
        fit(trusting(), train=loader(40, batch_size=8, drop_last=True))
    with pytest.raises(NotFederatable, match="root_data is one data set, and batches come from 2"):
        fit(trusting(), train={"a": loader(), "b": loader()})
