"""Mime inside a fit: by hand, and beside loops written from the paper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fedlightning.algorithms import FixedAdam, FixedMomentum, FixedRMSProp, FixedStatistics, Mime, MimeLite
from fedlightning.strategy import NotFederatable
from tests.strategy.quadratic import Quadratic, assert_at, fit_quadratic

HALF = FixedMomentum(beta=0.5)


@pytest.mark.parametrize(
    ("algorithm", "first", "second"),
    [
        (MimeLite(HALF), [0.46875, 0.4375], [1.006591796875, 0.95458984375]),
        (Mime(HALF), [0.453125, 0.453125], [0.97882080078125, 0.97882080078125]),
    ],
)
def test_two_rounds_by_hand(algorithm: MimeLite, first: list[float], second: list[float]) -> None:
    """Momentum is 0, then half of the mean gradient (-2, -2) at the start."""
    module, run = fit_quadratic(rounds=1, algorithm=algorithm)
    assert_at(module, first)
    torch.testing.assert_close(run.server_state["m"][0], torch.tensor([-1.0, -1.0], dtype=torch.float64))
    assert list(run.server_state) == ["m"]
    assert_at(fit_quadratic(rounds=2, algorithm=algorithm)[0], second)


def stepped(base: FixedStatistics, y: float, g: float, s: dict[str, float]) -> float:
    """Return ``U(g, s)`` of table 1, in plain numbers."""
    if isinstance(base, FixedMomentum):
        return y - 0.25 * ((1 - base.beta) * g + base.beta * s["m"])
    assert isinstance(base, FixedRMSProp | FixedAdam)
    pushed = g if isinstance(base, FixedRMSProp) else (1 - base.betas[0]) * g + base.betas[0] * s["m"]
    return y - 0.25 * pushed / (math.sqrt(s["v"]) + base.eps)


def learned(base: FixedStatistics, c: float, s: dict[str, float]) -> dict[str, float]:
    """Return ``V(c, s)`` of table 1, in plain numbers."""
    if isinstance(base, FixedMomentum):
        return {"m": (1 - base.beta) * c + base.beta * s["m"]}
    if isinstance(base, FixedRMSProp):
        return {"v": (1 - base.beta) * c**2 + base.beta * s["v"]}
    assert isinstance(base, FixedAdam)
    b1, b2 = base.betas
    return {"m": (1 - b1) * c + b1 * s["m"], "v": (1 - b2) * c**2 + b2 * s["v"]}


@pytest.mark.parametrize("kind", [MimeLite, Mime])
@pytest.mark.parametrize("base", [HALF, FixedRMSProp(beta=0.8, eps=0.1), FixedAdam((0.8, 0.9), eps=0.1)])
def test_a_loop_from_the_paper_ends_where_ours_does(kind: type[MimeLite], base: FixedStatistics) -> None:
    """The loop goes over the two parameters one by one, which do not meet in the quadratic."""
    ends = []
    for targets in ((4.0, 0.0), (0.0, 2.0)):
        x, s = 0.0, {"m": 0.0, "v": 1.0}
        for _ in range(4):
            workers = list(zip((1.0, 2.0), targets, strict=True))
            c = sum(curvature * (x - target) for curvature, target in workers) / 2
            ys = []
            for curvature, target in workers:
                y = x
                for _ in range(2):
                    g = curvature * (y - target)
                    if kind is Mime:
                        g = g - curvature * (x - target) + c
                    y = stepped(base, y, g, s)
                ys.append(y)
            x, s = sum(ys) / 2, learned(base, c, s)
        ends.append(x)
    assert_at(fit_quadratic(rounds=4, algorithm=kind(base))[0], ends)


class Watched(Quadratic):
    """Count in a buffer, and draw a random number for the loss, as dropout does."""

    def __init__(self) -> None:
        super().__init__(0.25)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.drawn: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.count += 1
        self.drawn.append(float(torch.rand(())))
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", loss)
        return loss


def test_gradients_aside_leave_buffers_logs_and_random_numbers_alone() -> None:
    module, run = fit_quadratic(rounds=1, module=Watched(), algorithm=Mime(HALF))
    plain, plain_run = fit_quadratic(rounds=1, module=Watched())
    assert isinstance(module, Watched)
    assert isinstance(plain, Watched)
    assert module.count == plain.count == 2
    # Asked first, twice each; then every step of ann's and bob's is preceded by one at the start.
    trained = [*module.drawn[5:8:2], *module.drawn[9:12:2]]
    assert trained == plain.drawn
    assert [*module.drawn[4:8:2], *module.drawn[8:12:2]] == plain.drawn
    assert len(run.history) == len(plain_run.history) == 1
    sent = [record.bytes_up for record in run.history.visits]
    ledgers = [member.worker.ledger for member in run.federation.members.values()]
    assert sent == [ledger.sent_bytes for ledger in ledgers]


def test_a_lone_worker_asks_itself() -> None:
    """With one worker, ``c`` is its own gradient, and Mime is a central optimizer on whole gradients."""
    module, _ = fit_quadratic(rounds=2, workers=1, partition=None, local_epochs=1, algorithm=Mime(HALF))
    x, m = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    curvatures = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    targets = torch.tensor([[4.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    for _ in range(2):
        y, c = x, (curvatures * (x - targets)).mean(0)
        for curvature in curvatures:  # the order of batches: ann's before bob's, for there is no shuffling
            y = y - 0.25 * (0.5 * (curvature * (y - x) + c) + 0.5 * m)
        x, m = y, 0.5 * c + 0.5 * m
    assert_at(module, x.tolist())


class Decaying(Quadratic):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.25, weight_decay=0.1)


def test_optimizers_with_statistics_of_their_own_are_refused() -> None:
    with pytest.raises(NotFederatable, match="Mime's statistics are the server's, and SGD at the workers"):
        fit_quadratic(algorithm=Mime(), module=Decaying(0.25))


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda: FixedMomentum(beta=1.0), ValueError, "beta must be at least 0 and less than 1, got 1.0"),
        (lambda: FixedRMSProp(eps=0.0), ValueError, "eps must be more than 0"),
        (lambda: FixedAdam(betas=(0.9,)), ValueError, "betas must be two numbers"),
        (lambda: FixedAdam(initial=-1.0), ValueError, "initial must be at least 0"),
        (lambda: MimeLite(base="adam"), TypeError, "base must be one such as .* got 'adam'"),
    ],
)
def test_settings_out_of_range_are_refused(make: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        make()
