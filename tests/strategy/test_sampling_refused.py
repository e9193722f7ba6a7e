"""Ways of sampling that do not go with their data, module or settings are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms import (
    FixedOrder,
    PoissonSampling,
    PowerOfChoice,
    RoundRobin,
    TaggedWorkers,
    WeightedSampling,
)
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import VirtualWorker
from tests.strategy.sampling_toys import fit
from tests.strategy.toys import Classifier


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
