"""Held against other people's code: what they compute too, and where they differ on purpose.

Those packages are not in the development extra, for what they bring along. To run all of this:
``uv pip install --no-deps byzfl flwr fedlab``, and what an import then misses. Torch's hook is always there.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.stats import entropy
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as torchs

from fedlightning.algorithms import (
    AggregationRule,
    Bulyan,
    CenteredClipping,
    GeometricMedian,
    Krum,
    Median,
    TrimmedMean,
    Update,
    UpdateMean,
    Yogi,
)
from fedlightning.algorithms.attacks import ALIE, InnerProduct
from fedlightning.algorithms.postprocessing import Memo, Postprocessing, PowerSGD, TopK
from fedlightning.algorithms.robust import krum_scores
from fedlightning.data import Dirichlet

SEEDS = range(5)
WORKERS = 11
BAD = 2


def package(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is compared with where it is installed")


def rows(seed: int, workers: int = WORKERS) -> Tensor:
    """Return what honest workers send, and two that are far off."""
    values = torch.randn(workers, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[:BAD] += 5
    return values


def ours(rule: AggregationRule, updates: Tensor) -> Tensor:
    return rule.combine(updates, torch.ones(len(updates)), torch.zeros_like(updates[0]))


def assert_near(mine: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=tolerance, atol=tolerance)


# ByzFL 0.0.11 (Guerraoui, Gupta, Pinot).


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("rule", "theirs", "settings", "tolerance"),
    [
        (Median(), "Median", {}, 1e-12),
        (TrimmedMean(BAD / WORKERS), "TrMean", {"f": BAD}, 1e-12),
        # Theirs counts n - f - 1 nearest others, as later papers do; Blanchard et al. count n - f - 2.
        (Krum(bad=BAD), "Krum", {"f": BAD + 1}, 1e-12),
        (CenteredClipping(radius=2.0, iterations=3), "CenteredClipping", {"L": 3, "tau": 2.0}, 1e-12),
        # Theirs starts at zero and ours at the mean: they meet where both have converged.
        (GeometricMedian(iterations=300), "GeometricMedian", {"nu": 1e-6, "T": 300}, 1e-8),
    ],
    ids=lambda value: str(value),
)
def test_rules_are_byzfls(
    rule: AggregationRule, theirs: str, settings: dict[str, Any], tolerance: float, seed: int
) -> None:
    updates = rows(seed)
    assert_near(
        ours(rule, updates), getattr(package("byzfl"), theirs)(**settings)(updates.numpy()), tolerance
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_by_krum_s_scores_are_byzfls(seed: int) -> None:
    """Theirs averages n - f of them, and ours lets nobody select so many: n - f - 2 at the most."""
    updates = rows(seed)
    best = krum_scores(updates, bad=BAD - 1).argsort()[: WORKERS - BAD]
    assert_near(updates[best].mean(0), package("byzfl").MultiKrum(f=BAD)(updates.numpy()))


@pytest.mark.parametrize("seed", SEEDS)
def test_attacks_are_byzfls(seed: int) -> None:
    """Theirs goes up by standard deviations where the paper, whose Algorithm 3 is ours, goes down."""
    byzfl, good = package("byzfl"), rows(seed)
    up = 2 * good.mean(0) - ALIE(z=1.5).agree(good, bad=2)
    assert_near(up, byzfl.ALittleIsEnough(1.5)(good.numpy()))
    agreed = InnerProduct(epsilon=0.7).agree(good, bad=2)
    assert_near(agreed, byzfl.InnerProductManipulation(0.7)(good.numpy()))


# Flower 1.41: its aggregation functions.


def results(updates: Tensor, samples: int = 1) -> list[tuple[list[Any], int]]:
    return [([update.numpy()[:12].reshape(3, 4), update.numpy()[12:]], samples) for update in updates]


def joined(arrays: list[Any]) -> Any:
    return np.concatenate([array.ravel() for array in arrays])


@pytest.mark.parametrize("seed", SEEDS)
def test_rules_are_flowers(seed: int) -> None:
    flower, updates = package("flwr.server.strategy.aggregate"), rows(seed)
    assert_near(ours(Median(), updates), joined(flower.aggregate_median(results(updates))))
    trimmed = flower.aggregate_trimmed_avg(results(updates), BAD / WORKERS)
    assert_near(ours(TrimmedMean(BAD / WORKERS), updates), joined(trimmed))
    assert_near(ours(Krum(bad=BAD), updates), joined(flower.aggregate_krum(results(updates), BAD, 0)))
    several = flower.aggregate_krum(results(updates), BAD, 4)
    assert_near(ours(Krum(bad=BAD, selected=4), updates), joined(several))


@pytest.mark.parametrize("seed", SEEDS)
def test_bulyan_is_flowers(seed: int) -> None:
    flower, updates = package("flwr.server.strategy.aggregate"), rows(seed)
    theirs = flower.aggregate_bulyan(results(updates), BAD, flower.aggregate_krum, to_keep=0)
    assert_near(ours(Bulyan(bad=BAD), updates), joined(theirs))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_weighted_mean_is_flowers_and_fedlabs(seed: int) -> None:
    updates, weights, mean = rows(seed), range(1, WORKERS + 1), UpdateMean()
    for update, weight in zip(updates, weights, strict=True):
        mean.add(Update([update], [True], []), weight)
    result = mean.result()
    assert result is not None
    given = [([update.numpy()], weight) for update, weight in zip(updates, weights, strict=True)]
    assert_near(result.tensors[0], package("flwr.server.strategy.aggregate").aggregate(given)[0])
    theirs = package("fedlab.utils.aggregator").Aggregators.fedavg_aggregate(list(updates), list(weights))
    assert_near(result.tensors[0], theirs, 1e-6)  # its weights are float32


def test_yogi_is_flowers() -> None:
    """Over three rounds; Flower's second moment begins at zero, and the paper's at tau squared or more."""
    package("flwr")
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server.strategy import FedYogi

    start = np.linspace(-1, 1, 6)
    theirs = FedYogi(
        initial_parameters=ndarrays_to_parameters([start]),
        eta=0.1,
        beta_1=0.9,
        beta_2=0.99,
        tau=1e-3,
        accept_failures=False,
    )
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    yogi = Yogi([parameter], lr=0.1, betas=(0.9, 0.99), tau=1e-3, initial=0.0)
    for seed in range(3):
        average = parameter.detach() + rows(seed)[0][:6]
        sent = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([average.numpy()]), 1, {})
        after, _ = theirs.aggregate_fit(seed + 1, [(None, sent)], [])
        parameter.grad = parameter.detach() - average
        yogi.step()
        assert_near(parameter.detach(), parameters_to_ndarrays(after)[0], 1e-9)


# FedLab 1.3.


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_entries_are_fedlabs(seed: int) -> None:
    row = rows(seed).flatten().float()
    values, positions = package("fedlab.contrib.compressor.topk").TopkCompressor(0.1).compress(row)
    (sent,), (along,) = TopK(fraction=0.1).apply([row], Memo())
    assert dict(zip(along.tolist(), sent.tolist(), strict=True)) == dict(
        zip(positions.tolist(), values.tolist(), strict=True)
    )


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_label_skew_is_fedlabs(alpha: float) -> None:
    """The mean entropy of workers' labels, over 40 draws; theirs stops giving to whom has its share."""
    theirs = package("fedlab.utils.dataset.functional").hetero_dir_partition
    labels = np.arange(2000) % 10

    def mean_entropy(parts: list[Any]) -> float:
        counts = [np.bincount(labels[part], minlength=10) for part in parts]
        return float(np.mean([entropy(count / count.sum()) for count in counts]))

    np.random.seed(0)
    drawn = [mean_entropy(list(theirs(labels, 5, 10, alpha).values())) for _ in range(40)]
    split = Dirichlet(alpha, min_samples=10, labels=labels).split
    mine = [mean_entropy(list(split(labels, num_workers=5, seed=seed).indices)) for seed in range(40)]
    assert abs(np.mean(mine) - np.mean(drawn)) < 0.12  # of log(10) = 2.3


# Torch's own hook for distributed data parallel.


def sum_over_one_process(tensor: Tensor, **_: Any) -> Any:
    """Stand in for `all_reduce`, whose threads may outlive the test, where there is nobody to add."""
    done: torch.futures.Future[list[Tensor]] = torch.futures.Future()
    done.set_result([tensor])
    return SimpleNamespace(get_future=lambda: done)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_power_iterations_are_torchs(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same factors on, with the same error fed back, over three steps."""
    matrices = [rows(seed) for seed in range(4)]
    monkeypatch.setattr(dist, "all_reduce", sum_over_one_process)
    alone = SimpleNamespace(size=lambda: 1)
    state = torchs.PowerSGDState(alone, rank, start_powerSGD_iter=2, min_compression_rate=0.5)
    state.iter = 2

    def hook(matrix: Tensor) -> Tensor:
        buffer = matrix.flatten().clone()
        bucket: Any = SimpleNamespace(
            buffer=lambda: buffer,
            index=lambda: 0,
            gradients=lambda: [buffer.view_as(matrix)],
            is_last=lambda: True,
        )
        done: Tensor = torchs.powerSGD_hook(state, bucket).wait()
        return done.view_as(matrix)

    hook(matrices[0])
    memo, chain = Memo(), Postprocessing([PowerSGD(rank)], error_feedback=True)
    memo.keep("powersgd", [state.q_memory_dict[0].view(-1, rank).clone()])
    memo.keep("lost", [state.error_dict[0].view_as(matrices[0]).clone()])
    for matrix in matrices[1:]:
        shapes = [tuple(matrix.shape)]
        torch.testing.assert_close(chain.decode(chain.encode([matrix], memo), shapes)[0], hook(matrix))
