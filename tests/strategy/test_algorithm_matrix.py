"""The matrix in ``docs/algorithms.md`` says what fits really give."""

from __future__ import annotations

import pytest

import fedlightning.algorithms
from fedlightning.algorithms import Algorithm
from tests.strategy.algorithm_matrix import ROWS, TABLE, WAYS, outcome, row_of


@pytest.mark.parametrize("name", ROWS)
def test_the_committed_row_is_what_the_fits_give(name: str) -> None:
    assert TABLE.holds(name)


def test_nothing_in_it_is_wrong() -> None:
    cells = [cell.strip() for line in TABLE.rows()[2:] for cell in line.split("|")[3:-1]]
    assert len(cells) == len(ROWS) * len(WAYS)
    assert {cell for cell in cells if not cell.startswith("refused: ")} == {"yes"}


def test_every_algorithm_has_a_row() -> None:
    public = [getattr(fedlightning.algorithms, name) for name in fedlightning.algorithms.__all__]
    known = {kind.__name__ for kind in public if isinstance(kind, type) and issubclass(kind, Algorithm)}
    assert known - {"Algorithm", "FedAvg"} <= {name.strip("`") for name in ROWS}


def test_an_algorithm_without_effect_is_noticed() -> None:
    assert outcome(row_of(fedlightning.algorithms.FedProx(mu=0)), "automatic") == "no effect"


def test_an_algorithm_that_is_not_averaging_where_it_should_be_is_noticed() -> None:
    prox = fedlightning.algorithms.FedProx
    assert outcome(row_of(prox(mu=1), prox(mu=1), "`mu=1`"), "automatic") == "not FedAvg at `mu=1`"
