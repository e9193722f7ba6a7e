"""What holds for all tests: a property is true or false, however slow the machine, and today as yesterday."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
# New examples each time, and more of them: `make properties`.
settings.register_profile(
    "exploring", settings.get_profile("repeatable"), derandomize=False, max_examples=1000
)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests whose names differ between processes: all that run tests must find the same ones.

    Raises:
        UsageError: An object's address is in a name.
    """
    if named := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"give the parameters of these tests ids without addresses: {named}")


def pytest_collection_finish() -> None:
    """Have searches for garbage pass over what is there by now: torch, the tests themselves, for good.

    They take 0.4 s otherwise, and some tests ask for dozens.
    """
    gc.collect()
    gc.freeze()
