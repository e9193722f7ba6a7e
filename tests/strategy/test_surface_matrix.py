"""The matrix in ``docs/lightning.md`` says what a fit with each feature really gives."""

from __future__ import annotations

import pytest

from tests.strategy.surface_matrix import FEATURES, TABLE


@pytest.mark.parametrize("name", FEATURES)
def test_the_committed_row_is_what_the_fits_give(name: str) -> None:
    assert TABLE.holds(name)
