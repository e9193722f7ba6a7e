"""Draws from NumPy's and Python's streams are noticed wherever code runs that may draw from them."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torchmetrics import SumMetric
from typing_extensions import override

from fedlightning.local.vectorised.logs import reduced
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.local.vectorised.training import VectorisedTraining
from tests.local.vectorised.toys import Cohort, Net, streams

PLAIN = partial(SGD, lr=0.1)


def train(cohort: Cohort, training: VectorisedTraining, rounds: int = 1) -> None:
    for round in range(rounds):
        cohort.at_once(cohort.visits(round), training=training)


@pytest.mark.parametrize("chunk", [1, 2])
def test_played_visits_do_not_ask_for_them(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = Cohort(Net(PLAIN), streams([8] * 6))
    training = VectorisedTraining(cohort.module, cohort.optimizer, chunk=chunk, numbered=False, draws=False)
    asked: list[int] = []
    state = random.getstate

    def noted() -> Any:
        asked.append(len(asked))
        return state()

    monkeypatch.setattr(random, "getstate", noted)
    train(cohort, training, rounds=3)
    # In the first visits two steps are taken as ever.
    assert len(asked) == 2


class Drawing(SumMetric):
    """Draws from one of the streams, after some updates."""

    quiet = 1000
    draw: Any = None

    @override
    def update(self, value: Any) -> None:
        type(self).quiet -= 1
        super().update(value * type(self).draw() if type(self).quiet < 0 else value)


class Metered(Net):
    """Counts in each step."""

    def __init__(self, kind: Any) -> None:
        super().__init__(PLAIN)
        self.counted = kind()

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        self.counted.update(batch[0].sum())
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("draw", [np.random.rand, random.random], ids=["numpy", "python"])
def test_draws_of_metrics_are_noticed_beside_played_steps(draw: Any) -> None:
    class Own(Drawing):
        pass

    Own.draw = staticmethod(draw)
    cohort = Cohort(Metered(Own), streams([16] * 6))
    training = VectorisedTraining(cohort.module, cohort.optimizer, chunk=2, numbered=False, draws=False)
    train(cohort, training, rounds=2)
    # The first visits of a round may be taken as ever.
    Own.quiet = 9
    before = random.getstate(), np.random.get_state()[1].tolist()
    with pytest.raises(NotBatchable, match="NumPy or Python"):
        train(cohort, training)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


NUMBERS = torch.tensor([[1.0, 5.0, float("nan"), 2.0], [1.0, 7.0, 1.0, float("inf")], [1.0, 9.0, 1.0, 3.0]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("sum", [3.0, 21.0, float("nan"), float("inf")]),
        ("max", [1.0, 9.0, float("nan"), float("inf")]),
        ("min", [1.0, 5.0, float("nan"), 2.0]),
        ("mean", [1.0, 7.5, float("nan"), float("inf")]),
    ],
)
def test_what_is_logged_is_combined_worker_by_worker(reduction: str, expected: list[float]) -> None:
    found = reduced(NUMBERS.double(), [1, 1, 2], reduction)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), equal_nan=True)
