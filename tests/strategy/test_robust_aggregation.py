"""Rules against bad workers inside a fit: degenerate cases, trust, and a worker that sends nonsense."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fedlightning.algorithms import Krum, Median, TrimmedMean
from fedlightning.strategy import CohortTooSmall, FederatedStrategy, Tolerance
from fedlightning.workers import VirtualWorker
from tests.strategy.test_tolerance import workers
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples

WORK: list[dict[str, Any]] = [{}, {"local_steps": 1}, {"optimizer_state": "keep"}]


class Poisoned(Classifier):
    """Whoever has sample 0 multiplies its loss."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        bad = (batch[0] == self.marked).all(1).any()
        return super().training_step(batch, batch_idx) * (-1e4 if bad else 1.0)


@pytest.mark.parametrize("work", WORK)
def test_nothing_trimmed_is_averaging(work: dict[str, Any]) -> None:
    def make() -> Classifier:
        return Classifier(lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9))

    plain, _ = fit(FederatedStrategy(4, **work), module=make)
    trimmed, _ = fit(FederatedStrategy(4, aggregation=TrimmedMean(0.0), **work), module=make)
    for name, tensor in plain.named_parameters():
        torch.testing.assert_close(dict(trimmed.named_parameters())[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("rule", [Median(), Krum(bad=1), TrimmedMean(0.25)], ids=str)
def test_one_bad_worker_is_withstood(rule: Any, work: dict[str, Any]) -> None:
    """The parameters stay near those that the good workers reach without the bad one."""
    marked = samples(30)[0][0]

    def make() -> Poisoned:
        module = Poisoned(lambda parameters: torch.optim.SGD(parameters, lr=0.05), dropout=0.0)
        module.marked = marked
        return module

    def size(aggregation: Any) -> float:
        strategy = FederatedStrategy(6, aggregation=aggregation, **work)
        module, _ = fit(strategy, module=make, train=loader(30, batch_size=5))
        return max(float(parameter.detach().abs().max()) for parameter in module.parameters())

    assert not size(None) < 10
    assert size(rule) < 10


def test_a_trusted_worker_follows_the_rule() -> None:
    direct, _ = fit(FederatedStrategy(4, aggregation=Median()))
    trusted, _ = fit(FederatedStrategy(4, aggregation=Median(), aggregator=VirtualWorker(id="trusted")))
    assert_same_module(direct, trusted)


def test_a_rule_that_is_left_with_too_few_stops_the_run() -> None:
    crew = [*workers(bob={1}), VirtualWorker(id="dave"), VirtualWorker(id="eve")]
    strategy = FederatedStrategy(crew, aggregation=Krum(bad=1), tolerance=Tolerance(on_lost="skip"))
    with pytest.raises(CohortTooSmall, match="round 1: 4 of 5 workers"):
        fit(strategy)


def test_bad_settings() -> None:
    with pytest.raises(TypeError, match="aggregation must be a rule"):
        FederatedStrategy(aggregation="median")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="update='sequential' has nothing to combine"):
        FederatedStrategy(aggregation=Median(), update="sequential")
    with pytest.raises(ValueError, match=r"Krum\(bad=2, selected=1\) needs at least 7 workers"):
        FederatedStrategy(10, cohort_size=6, aggregation=Krum(bad=2))
    with pytest.raises(ValueError, match="needs at least 11 workers in a round, and there are 10"):
        fit(FederatedStrategy(aggregation=Krum(bad=4)))
