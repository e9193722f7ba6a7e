"""Compiled steps give the numbers of uncompiled ones, from one graph per shape."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from fedlightning.local.vectorised import compiled
from fedlightning.local.vectorised.training import VectorisedTraining
from tests.local.vectorised.toys import FEATURES, Cohort, Net, assert_same_outcomes, streams


class Counting:
    """A backend that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.graphs = 0
        self.runs = 0

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Any:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph(*args)

        return run


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Counting:
    torch._dynamo.reset()
    counting = Counting()
    monkeypatch.setattr(compiled, "BACKEND", counting)
    monkeypatch.setattr(compiled, "USES_BEFORE", 1)
    return counting


class Frozen(nn.Module):
    """Have a parameter that no loss depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(FEATURES, 8)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.map(x)
        return hidden.tanh()


def rounds(cohort: Cohort, training: VectorisedTraining, count: int) -> None:
    for round in range(count):
        visits = cohort.visits(round)
        assert_same_outcomes(cohort.at_once(visits, training=training), cohort.one_by_one(visits))


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize(
    "make", [partial(SGD, lr=0.1, weight_decay=0.1), partial(Adam, lr=0.01, eps=1e-4)], ids=["sgd", "adam"]
)
def test_there_is_one_graph_per_shape_not_per_worker_or_round(
    make: Any, chunk: int, backend: Counting
) -> None:
    # Batches of 4 and, at the end, of 2: two shapes where chunks are full.
    cohort = Cohort(Net(make, Frozen()), streams([10] * 6), "keep")
    training = VectorisedTraining(
        cohort.module, cohort.optimizer, chunk=chunk, numbered=False, draws=False, compiled=True
    )
    rounds(cohort, training, 3)
    assert training.why_not_compiled == ""
    assert backend.graphs == 2
    # Three rounds of six workers with three steps each, but for the first one of either shape.
    assert backend.runs == 3 * (6 // chunk) * 3 - 2


def test_a_rate_that_changes_needs_no_new_graph(backend: Counting) -> None:
    cohort = Cohort(Net(partial(SGD, lr=0.1)), streams([8] * 4))
    training = VectorisedTraining(
        cohort.module, cohort.optimizer, chunk=2, numbered=False, draws=False, compiled=True
    )
    for rate in (0.1, 0.05, 0.01):
        cohort.optimizer.param_groups[0]["lr"] = rate
        rounds(cohort, training, 1)
    assert backend.graphs == 1


class Late(Net):
    """Logs a number that changes in Python only: a graph has to notice."""

    factor = 1.0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        self.log("factor", self.factor)
        return super().training_step(batch, batch_idx) * self.factor


def test_what_changes_on_the_module_is_noticed(backend: Counting) -> None:
    cohort = Cohort(Late(partial(SGD, lr=0.1)), streams([8] * 2))
    training = VectorisedTraining(
        cohort.module, cohort.optimizer, chunk=2, numbered=False, draws=False, compiled=True
    )
    for factor in (1.0, 2.0, 3.0):
        cohort.module.factor = factor
        rounds(cohort, training, 1)
    assert training.why_not_compiled == ""


class Prints(Net):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        torch._dynamo.graph_break()
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("module", "draws", "reason"),
    [
        (Prints, False, ""),
        (lambda make: Net(make, nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8))), False, "buffers"),
        (lambda make: Net(make, nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout())), True, "random"),
    ],
    ids=["graph break", "buffers", "dropout"],
)
def test_what_cannot_be_compiled_is_named_and_goes_on_uncompiled(
    module: Any, draws: bool, reason: str, backend: Counting
) -> None:
    cohort = Cohort(module(partial(SGD, lr=0.1)), streams([8] * 4))
    training = VectorisedTraining(
        cohort.module, cohort.optimizer, chunk=2, numbered=False, draws=draws, compiled=True
    )
    rounds(cohort, training, 1)
    assert training.why_not_compiled
    assert reason in training.why_not_compiled
    assert backend.runs == 0


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_has_compiler", lambda: False)
    cohort = Cohort(Net(partial(SGD, lr=0.1)), streams([8] * 2))
    assert "no C++ compiler" in compiled.why_not_compilable(cohort.module, draws=False)


@pytest.mark.skipif(
    not compiled._has_compiler(), reason="torch.compile needs a C++ compiler, and there is none"
)
def test_the_usual_backend_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "USES_BEFORE", 1)
    cohort = Cohort(Net(partial(SGD, lr=0.1)), streams([8] * 2))
    training = VectorisedTraining(
        cohort.module, cohort.optimizer, chunk=2, numbered=False, draws=False, compiled=True
    )
    rounds(cohort, training, 1)
    assert training.why_not_compiled == ""
