"""Tests of one group share what is slow to set up: they have to stay in one process, as xdist promises."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("of its own")
def test_groups_of_tests_are_heeded(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("tests are not dealt out by groups (--dist loadgroup)")
    assert request.node.nodeid.endswith("@of its own"), "pytest and pytest-xdist do not go together"
