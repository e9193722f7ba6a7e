"""Combinations that make no sense are refused before any work: what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fedlightning.algorithms import Bulyan, FedPer, Krum, Mime, Scaffold, TrimmedMean
from fedlightning.algorithms.asynchronous import Polynomial
from fedlightning.data import ClassesPerWorker
from fedlightning.strategy import FederatedStrategy, NotFederatable
from tests.strategy.test_bad_input import Untouched, refused
from tests.strategy.toys import fit

LABELS = np.arange(100) % 10


class WithAdam(Untouched):
    """Must not be trained, least of all with Adam."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


COMBINATIONS: dict[str, tuple[Callable[[], Any], type[Exception], tuple[str, ...]]] = {
    "Krum with too few workers": (
        lambda: FederatedStrategy(6, aggregation=Krum(bad=2)),
        ValueError,
        ("Krum(bad=2, selected=1) needs at least 7 workers", "there are 6", "Use a larger cohort"),
    ),
    "Krum with too few of a cohort": (
        lambda: FederatedStrategy(20, cohort_size=6, aggregation=Krum(bad=1, selected=5)),
        ValueError,
        ("needs at least 8 workers in a round", "there are 6", "assume fewer bad workers"),
    ),
    "Bulyan with too few workers": (
        lambda: FederatedStrategy(6, aggregation=Bulyan(bad=1)),
        ValueError,
        ("Bulyan(bad=1) needs at least 7 workers", "there are 6", "Use a larger cohort"),
    ),
    "half of the workers trimmed": (
        lambda: TrimmedMean(0.5),
        ValueError,
        ("fraction must be at least 0 and below 0.5", "got 0.5", "the share of workers"),
    ),
    "SCAFFOLD with Adam": (
        lambda: fit(FederatedStrategy(4, algorithm=Scaffold()), module=WithAdam),
        NotFederatable,
        ("SGD without momentum at the workers", "Adam is not it", "Use torch.optim.SGD(lr=...)"),
    ),
    "Mime with Adam": (
        lambda: fit(FederatedStrategy(4, algorithm=Mime()), module=WithAdam),
        NotFederatable,
        ("Mime's statistics are the server's", "Adam", "Use"),
    ),
    "more classes per worker than there are": (
        lambda: ClassesPerWorker(11, labels=LABELS).split(LABELS, num_workers=4),
        ValueError,
        ("k=11", "the 10 classes", "Use k of at most 10"),
    ),
    "personal parts that are not there": (
        lambda: fit(FederatedStrategy(4, algorithm=FedPer(personal=["head"])), module=Untouched),
        NotFederatable,
        ("personal names 'head'", "no such part, parameter or buffer", "It has net.0"),
    ),
    "an arrival before its start": (
        lambda: Polynomial()(-1),
        ValueError,
        ("staleness=-1", "must be at least 0", "cannot arrive before its start"),
    ),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_it_is_refused_before_any_work(name: str) -> None:
    attempt, kind, says = COMBINATIONS[name]
    refused(attempt, kind, says)
